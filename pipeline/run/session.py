"""Assembles a training run from its configuration, trains it, and leaves its exports."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from pipeline.checkpoint import BackgroundWriter, CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder, RunState
from pipeline.config.presets import load_preset, to_plain
from pipeline.config.schema import Preset, TrainConfig
from pipeline.data.batch import Batch
from pipeline.data.damage import DamageTally
from pipeline.data.evaluation import check_sets
from pipeline.data.features import has_features, image_manifest
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.errors import ConfigError, saving
from pipeline.inference.evaluate import Evaluated, result_names, validate
from pipeline.inference.pictures import side_by_side, write_png
from pipeline.models import save_discriminator, save_generator
from pipeline.run.assembly import build_losses, build_phases, build_state, memory_format_of, place
from pipeline.run.inputs import StepInputs, open_semantics
from pipeline.run.resume import newest_checkpoint, retention_of
from pipeline.runtime.backend import Backend
from pipeline.runtime.signals import children_do_not_hear
from pipeline.tracking import NullTracker, Tracker, open_tracker
from pipeline.train.loop import LoopParts, Progress, train
from pipeline.train.report import MetricsFile, RunningMeans

_LOG = logging.getLogger(__name__)
_MLFLOW_STATUS: dict[RunState, str] = {"finished": "FINISHED", "preempted": "KILLED", "failed": "FAILED"}
LIBRARIES = ("torch", "torchvision", "accelerate", "deepspeed", "open_clip_torch", "numpy", "pillow", "mlflow")


@dataclass(frozen=True)
class Outcome:
    """How a call ended: whether the run is finished, whether this call did anything for it, and where it stands."""

    is_finished: bool
    has_trained: bool
    images_seen: int


def resolve_semantics(config: TrainConfig) -> TrainConfig:
    """Replace `auto` by what is there: the run's own choice, else the cache where one exists, else online."""
    semantics = config.semantics
    if semantics.source != "auto" or not config.discriminator.semantic:
        return config
    folder = RunFolder(config.run_dir)
    if folder.config.is_file():
        source = load_preset(str(folder.config)).train.semantics.source
    else:
        source = "cached" if has_features(semantics.cache) else "online"
    return replace(config, semantics=replace(semantics, source=source))


class Session:
    """One call of a training job, on one process.

    Args:
        preset: What to do.
        backend: Ranks and devices.

    Raises:
        InputError: Shards, features, weights or folder cannot be used.
    """

    def __init__(self, preset: Preset, backend: Backend) -> None:
        self._config = config = resolve_semantics(preset.train)
        self._preset = replace(preset, train=config)
        self._backend = backend
        self._folder = RunFolder(config.run_dir)
        self._manifest = image_manifest(config.data.shards)
        self._semantics = open_semantics(config, self._manifest, backend.device)
        is_cached = self._semantics is not None and self._semantics.extractor is None
        features = config.semantics.cache if is_cached else None
        self._samples = TrainingSamples(config.data, config.seed, features)
        self._folder.check(self._preset)
        check_sets(config.report.validation_sets)
        self._check_scale()
        self._check_best()
        self._losses = build_losses(config.losses, is_adversarial=config.is_adversarial)
        if self._losses.perceptual is not None:
            place(self._losses.perceptual, config.runtime, backend.device)
        channels = self._semantics.channels if self._semantics is not None else 0
        self._state = build_state(config, channels, backend)
        self._lock = self._lock_folder()
        if backend.is_leader:
            self._folder.write_config(self._preset)

    def _lock_folder(self) -> BinaryIO | None:
        lock = self._folder.lock() if self._backend.is_leader else None
        # Collective: before it every rank has checked the folder as it was, after it the leader writes.
        if self._backend.any_rank(self._backend.is_leader and lock is None):
            raise ConfigError(
                f"another process is training in {self._folder.path}, and two would overwrite each other's "
                "checkpoints; wait for it or stop it, or start a new run with --run-dir"
            )
        return lock

    def _check_scale(self) -> None:
        scale = self._config.generator.scale
        if scale != self._manifest.images.scale:
            raise ConfigError(
                f"generator.scale={scale}, but the shards in {self._config.data.shards} were written for "
                f"scale {self._manifest.images.scale}; give shards of the same scale, or change one"
            )

    def _check_best(self) -> None:
        report = self._config.report
        sets = [folder.name for folder in report.validation_sets]
        known = [*result_names(), *(f"{name}/{metric}" for name in sets for metric in result_names())]
        if report.keep_best and report.keep_best.removeprefix("-") not in known:
            raise ConfigError(
                f"report.keep_best={report.keep_best!r} is no metric of the validation: {', '.join(known)}"
            )

    @property
    def notes(self) -> list[str]:
        """What a person should know before the first step, one line each."""
        lines = [f"{self._backend.description}; {self._manifest.num_samples} samples in {self._config.data.shards}"]
        if self._semantics is not None:
            lines.append(f"semantics: {self._semantics.description}")
        if self._losses.perceptual is not None:
            lines.append(f"perceptual loss: VGG19, weights {self._config.losses.perceptual_weights}")
        if self.random_networks:
            lines.append(
                f"note: seeded random weights for {' and '.join(self.random_networks)}, good for demos and tests "
                "only; for the real ones: --semantics.weights openai --losses.perceptual-weights torchvision"
            )
        return lines

    @property
    def random_networks(self) -> list[str]:
        """Frozen networks that run with random weights."""
        names = []
        if self._semantics is not None and self._config.semantics.weights == "random":
            names.append("the semantic extractor")
        if self._losses.perceptual is not None and self._config.losses.perceptual_weights == "random":
            names.append("the perceptual network")
        return names

    def run(self, progress_of: Callable[[int, int], Progress], must_stop: Callable[[], bool]) -> Outcome:
        """Resume from the newest checkpoint, train to the end or until asked to stop, and export.

        Args:
            progress_of: Builds the terminal's view from images seen and the total.
            must_stop: Whether this process was asked to save and leave.

        Raises:
            CheckpointError: All checkpoints are damaged, or they belong to another run.
            NonFiniteError: Losses or gradients stayed NaN or infinite.
            DamagedDataError: Too many samples are damaged.
            SaveError: A checkpoint could not be written.
            RankLostError: Another process of the run died or hangs.
        """
        means, metrics_file = RunningMeans(), MetricsFile(self._folder.metrics)
        facts = self._resume(metrics_file, means)
        damage = DamageTally(self._manifest.num_samples, self._config.data.max_bad_fraction)
        if "damage" in facts:
            damage.load(facts["damage"])
        config, backend = self._config, self._backend
        if backend.is_leader:
            metrics_file.rewind(self._state.images_seen)
            self._store(metrics_file).tidy(self._state.images_seen)
            # Left unfinished once, and perhaps done by a call that was killed afterwards.
            self._state.validation_due &= self._state.images_seen not in metrics_file.scores(result_names()[0])
        self._state.validation_due = backend.any_rank(self._state.validation_due and backend.is_leader)
        if self._state.images_seen >= config.num_steps * config.data.batch_size and not self._state.validation_due:
            if backend.any_rank(backend.is_leader and exported_position(self._folder) != self._state.images_seen):
                # Killed between the last checkpoint and the end of the export.
                tracker = self._open_tracker(facts.get("mlflow_run_id"))
                self._leave_results(tracker)
                tracker.close(_MLFLOW_STATUS["finished"])
            self._write_status("finished")
            return Outcome(is_finished=True, has_trained=False, images_seen=self._state.images_seen)
        self._write_status("running")
        tracker = self._open_tracker(facts.get("mlflow_run_id"))
        generator_phase, discriminator_phase = build_phases(config, self._state, self._losses, backend.autocast)
        parts = LoopParts(
            config=config,
            backend=backend,
            generator_phase=generator_phase,
            discriminator_phase=discriminator_phase,
            prepare=StepInputs(self._semantics, backend.autocast, memory_format_of(config.runtime)),
            validate=lambda images_seen: self._validate(images_seen, tracker, must_stop),
            checkpoints=BackgroundWriter(self._store(metrics_file)),
            facts=self._facts(tracker.run_id),
            metrics=metrics_file,
            tracker=tracker,
            progress=progress_of(self._state.images_seen, config.num_steps * config.data.batch_size),
            damage=damage,
            must_stop=must_stop,
        )
        ending: RunState = "failed"
        try:
            with parts.checkpoints.closing(), backend.naming_lost_ranks():
                is_finished = train(parts, self._state, means, self._loader())
            if is_finished:
                self._leave_results(tracker)
            ending = "finished" if is_finished else "preempted"
        finally:
            with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
                self._write_status(ending)
            tracker.close(_MLFLOW_STATUS[ending])
        return Outcome(is_finished, has_trained=True, images_seen=self._state.images_seen)

    def _write_status(self, state: RunState) -> None:
        if self._backend.is_leader:
            total_images = self._config.num_steps * self._config.data.batch_size
            self._folder.write_status(state, self._state.images_seen, total_images)

    def _resume(self, metrics: MetricsFile, means: RunningMeans) -> Mapping[str, Any]:
        checkpoint = newest_checkpoint(self._config, self._store(metrics), self._manifest, self._backend)
        if checkpoint is None:
            return {}
        self._state.load(checkpoint, self._backend.device)
        means.load(checkpoint.facts["open_report"], self._backend.device, is_leader=self._backend.is_leader)
        _LOG.info("resuming at %d images", checkpoint.images_seen)
        return checkpoint.facts

    def _store(self, metrics: MetricsFile) -> CheckpointStore:
        return CheckpointStore(self._folder.checkpoints, retention_of(self._config, metrics))

    def _facts(self, run_id: str | None) -> dict[str, Any]:
        return {
            "image_manifest": self._manifest.digest,
            "seed": self._config.seed,
            "mlflow_run_id": run_id,
            "backend": self._backend.description,
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
        }

    def _open_tracker(self, run_id: str | None) -> Tracker | NullTracker:
        if not self._backend.is_leader:
            return NullTracker()
        parameters = _flatten(to_plain(self._config))
        tags = {
            "image_manifest": self._manifest.digest,
            "backend": self._backend.description,
            "random_weights": ", ".join(self.random_networks) or "none",
        }
        if self._semantics is not None:
            tags["semantics_weights_sha256"] = self._semantics.weights_sha256
        return open_tracker(self._config.report.experiment, str(self._folder.path), run_id, parameters, tags)

    def _loader(self) -> Iterator[Batch]:
        config, backend = self._config, self._backend
        num_steps = config.num_steps - self._state.images_seen // config.data.batch_size
        order = RankBatches(
            self._state.images_seen, num_steps, config.data.batch_size, backend.rank, backend.world_size
        )
        loader = batches(self._samples, order, config.data.num_workers, pin_memory=backend.device.type == "cuda")
        with children_do_not_hear():
            return iter(loader)

    def _validate(
        self, images_seen: int, tracker: Tracker | NullTracker, must_stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        backend = self._backend

        def keep(name: str, evaluated: Evaluated) -> None:
            picture = side_by_side(evaluated)
            path = self._folder.pictures / f"{name}_{evaluated.pair.name}.png"
            with saving(path):
                write_png(path, picture)
            tracker.picture(f"{name}/{evaluated.pair.name}", picture, images_seen)

        def total(values: np.ndarray) -> np.ndarray:
            return backend.sum(torch.from_numpy(values)).numpy()

        return validate(
            self._state.average.module,
            self._config.report.validation_sets,
            self._config.generator.scale,
            rank=backend.rank,
            world_size=backend.world_size,
            total=total,
            keep=keep,
            must_leave=lambda: backend.any_rank(must_stop()),
        )

    def close(self) -> None:
        """Let go of the folder, and of networks and optimizers, so that the process group can be left in order."""
        del self._state, self._samples
        if self._lock is not None:
            self._lock.close()

    def _leave_results(self, tracker: Tracker | NullTracker) -> None:
        self._export()
        tracker.file(self._folder.generator)
        tracker.file(self._folder.config)

    def _export(self) -> None:
        discriminator = self._state.discriminator
        weights = discriminator.weights() if discriminator is not None else None  # collective
        if not self._backend.is_leader:
            return
        metadata = {
            "images_seen": str(self._state.images_seen),
            "image_manifest": self._manifest.digest,
            "modelspec.description": f"trained with {self._config.discriminator.architecture} discriminator, "
            f"semantic: {self._config.discriminator.semantic}",
        }
        with saving(self._folder.generator.parent):
            if weights is not None:
                save_discriminator(self._folder.discriminator, self._config.discriminator, weights, metadata)
            # Last: `exported_position` takes it for the whole export.
            save_generator(self._folder.generator, self._state.average.module, metadata)


def exported_position(folder: RunFolder) -> int | None:
    """Return at how many images the weights in the export folder were taken; None if there are none."""
    try:
        with safe_open(folder.generator, "pt") as file:
            return int((file.metadata() or {})["images_seen"])
    except (OSError, SafetensorError, KeyError):
        return None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat

"""Assembles a training run from its configuration, trains it, and leaves its exports."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from pipeline.build import build_discriminator, build_generator, build_losses
from pipeline.checkpoint import CheckpointStore
from pipeline.config import Preset, TrainConfig
from pipeline.data.evaluation import check_sets
from pipeline.data.features import has_features, image_manifest
from pipeline.data.samples import RankBatches, SamplePlan, TrainingSamples, batches
from pipeline.errors import CheckpointError, ConfigError
from pipeline.evaluate import Evaluated, validate
from pipeline.inputs import StepInputs, open_semantics
from pipeline.models import save_generator
from pipeline.pictures import side_by_side
from pipeline.presets import load_preset, to_plain
from pipeline.run_folder import RunFolder
from pipeline.runtime.backend import Backend
from pipeline.tracking import NullTracker, Tracker, open_tracker
from pipeline.train.ema import MovingAverage
from pipeline.train.loop import LoopParts, Progress, train
from pipeline.train.phases import DiscriminatorPhase, GeneratorPhase
from pipeline.train.report import MetricsFile, RunningMeans
from pipeline.train.state import TrainingState
from shards.files import write_atomically

_LOG = logging.getLogger(__name__)
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
        self._samples = TrainingSamples(
            SamplePlan(
                shards=config.data.shards,
                features=config.semantics.cache if is_cached else None,
                seed=config.seed,
                crop_px=config.data.crop_px,
                canvas_px=config.data.canvas_px,
            )
        )
        self._folder.check(self._preset)
        check_sets(config.report.validation_sets)
        self._check_scale()
        self._losses = build_losses(config.losses, is_adversarial=config.is_adversarial)
        self._build_networks()
        backend.barrier()  # every rank has checked the folder as it was
        if backend.is_leader:
            self._folder.write_config(self._preset)

    def _check_scale(self) -> None:
        scale = self._config.generator.scale
        if scale != self._manifest.config["scale"]:
            raise ConfigError(
                f"generator.scale={scale}, but the shards in {self._config.data.shards} were written for "
                f"scale {self._manifest.config['scale']}; give shards of the same scale, or change one"
            )

    def _build_networks(self) -> None:
        config, backend = self._config, self._backend
        torch.manual_seed(config.seed)
        generator = self._place(build_generator(config.generator))
        discriminator = None
        if config.is_adversarial:
            channels = self._semantics.channels if self._semantics is not None else 0
            discriminator = self._place(build_discriminator(config.discriminator, channels, config.data.crop_px))
        average = MovingAverage(generator)
        schedule = config.schedule
        generator_trainable = backend.wrap(generator, self._adam(generator, schedule.generator_learning_rate))
        discriminator_trainable = (
            backend.wrap(discriminator, self._adam(discriminator, schedule.discriminator_learning_rate))
            if discriminator is not None
            else None
        )
        self._state = TrainingState(generator_trainable, discriminator_trainable, average)
        if config.runtime.compile:
            # In place and after the copy: names of parameters stay as they are.
            for network in (generator, discriminator):
                if network is not None:
                    network.compile()
        if self._losses.perceptual is not None:
            self._place(self._losses.perceptual)

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self._config.runtime.channels_last else torch.contiguous_format

    def _place(self, module: nn.Module) -> nn.Module:
        return module.to(self._backend.device).to(memory_format=self._memory_format)

    def _adam(self, module: nn.Module, learning_rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(
            module.parameters(),
            lr=learning_rate,
            betas=self._config.schedule.betas,
            fused=True if self._backend.device.type == "cuda" else None,
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
            NonFiniteError: A loss became NaN or infinite.
        """
        means = RunningMeans()
        facts = self._resume(means)
        config, backend = self._config, self._backend
        metrics_file = MetricsFile(self._folder.metrics)
        if backend.is_leader:
            metrics_file.rewind(self._state.images_seen)
        if self._state.images_seen >= config.num_steps * config.data.batch_size:
            if not self._folder.generator.is_file():
                self._export()  # killed between the last checkpoint and the export
            return Outcome(is_finished=True, has_trained=False, images_seen=self._state.images_seen)
        tracker = self._open_tracker(facts.get("mlflow_run_id"))
        generator_phase, discriminator_phase = self._phases()
        parts = LoopParts(
            config=config,
            backend=backend,
            generator_phase=generator_phase,
            discriminator_phase=discriminator_phase,
            prepare=StepInputs(self._semantics, backend.autocast, self._memory_format),
            validate=lambda images_seen: self._validate(images_seen, tracker),
            checkpoints=CheckpointStore(self._folder.checkpoints, config.report.keep_checkpoints),
            facts=self._facts(tracker.run_id),
            metrics=metrics_file,
            tracker=tracker,
            progress=progress_of(self._state.images_seen, config.num_steps * config.data.batch_size),
            must_stop=must_stop,
        )
        status = "FAILED"
        try:
            is_finished = train(parts, self._state, means, self._loader())
            if is_finished:
                self._export()
                tracker.file(self._folder.generator)
                tracker.file(self._folder.config)
            status = "FINISHED" if is_finished else "KILLED"
        finally:
            tracker.close(status)
        return Outcome(is_finished, has_trained=True, images_seen=self._state.images_seen)

    def _phases(self) -> tuple[GeneratorPhase, DiscriminatorPhase | None]:
        state, autocast = self._state, self._backend.autocast
        if state.discriminator is None:
            return GeneratorPhase(state.generator, None, self._losses, autocast), None
        judging = DiscriminatorPhase(state.discriminator, self._losses.adversarial, autocast)
        shares = self._config.runtime.discriminator_pass == "shared"
        if shares and not judging.can_judge_once:
            raise ConfigError(
                "runtime.discriminator_pass='shared' works neither under DeepSpeed nor with the relativistic loss; "
                "set --runtime.discriminator-pass separate"
            )
        bare = state.discriminator.bare
        return GeneratorPhase(state.generator, bare, self._losses, autocast, judging if shares else None), judging

    def _resume(self, means: RunningMeans) -> Mapping[str, Any]:
        checkpoint = CheckpointStore(self._folder.checkpoints, self._config.report.keep_checkpoints).newest()
        if checkpoint is None:
            return {}
        if checkpoint.facts["image_manifest"] != self._manifest.digest:
            raise CheckpointError(
                f"the run in {self._folder.path} was started on other shards than {self._config.data.shards} "
                f"(manifest {checkpoint.facts['image_manifest'][:12]}, now {self._manifest.digest[:12]}); "
                "give back those shards, or start a new run with --run-dir"
            )
        self._state.load(checkpoint)
        means.load(checkpoint.facts["open_report"], self._backend.device, is_leader=self._backend.is_leader)
        _LOG.info("resuming at %d images", checkpoint.images_seen)
        return checkpoint.facts

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

    def _loader(self) -> Any:
        config, backend = self._config, self._backend
        num_steps = config.num_steps - self._state.images_seen // config.data.batch_size
        order = RankBatches(
            self._state.images_seen, num_steps, config.data.batch_size, backend.rank, backend.world_size
        )
        return batches(self._samples, order, config.data.num_workers, pin_memory=backend.device.type == "cuda")

    def _validate(self, images_seen: int, tracker: Tracker | NullTracker) -> dict[str, float]:
        backend = self._backend

        def keep(name: str, evaluated: Evaluated) -> None:
            picture = side_by_side(evaluated)
            self._folder.pictures.mkdir(exist_ok=True)
            Image.fromarray(picture).save(self._folder.pictures / f"{name}_{evaluated.pair.name}.png")
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
        )

    def close(self) -> None:
        """Let go of networks and optimizers, so that the process group can be left in order."""
        del self._state, self._samples

    def _export(self) -> None:
        if not self._backend.is_leader:
            return
        self._folder.generator.parent.mkdir(exist_ok=True)
        metadata = {
            "images_seen": str(self._state.images_seen),
            "image_manifest": self._manifest.digest,
            "modelspec.description": f"trained with {self._config.discriminator.architecture} discriminator, "
            f"semantic: {self._config.discriminator.semantic}",
        }
        save_generator(self._folder.generator, self._state.average.module, metadata)
        if self._state.discriminator is not None:
            state = self._state.discriminator.bare.state_dict()
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
            write_atomically(self._folder.discriminator, save(tensors, metadata))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat

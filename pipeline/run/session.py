"""One call of a training job: builds a run from its configuration, resumes, trains, exports."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from pipeline.checkpoint import BackgroundWriter, CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder, RunState, RunStatus
from pipeline.config.schema import Preset
from pipeline.data.batch import Batch
from pipeline.data.damage import DamageTally
from pipeline.data.datasets import open_datasets
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.errors import ConfigError, SaveError
from pipeline.metrics.criterion import best_position
from pipeline.run.assembly import build_gan, build_losses, build_state, memory_format_of, start_networks
from pipeline.run.backup import BackupUpdates
from pipeline.run.checks import check_data, resolve
from pipeline.run.export import Provenance, export_best, export_networks, exported_position
from pipeline.run.inputs import StepInputs, open_semantics
from pipeline.run.memory import naming_memory, resolve_micro_batch
from pipeline.run.record import LEFT_OUT, facts_of, notes_of, start_notes, start_tracking, weight_hashes
from pipeline.run.resume import newest_checkpoint, retention_of
from pipeline.run.sights import Sights
from pipeline.run.sync import TRACKED_STATUS
from pipeline.run.validation import Validation, find_validation_metrics
from pipeline.runtime.backend import Backend
from pipeline.runtime.machine_load import MachineLoad
from pipeline.runtime.signals import children_do_not_hear
from pipeline.tracking import Trackers, check_trackers, known_run_id, remember_run_id
from pipeline.train.health import GanHealth
from pipeline.train.loop import LoopParts, Progress, train
from pipeline.train.report import MetricsFile, RunningMeans

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        is_finished: Whether the run is at its end.
        has_trained: Whether this call trained or validated.
        images_seen: The run's position.
    """

    is_finished: bool
    has_trained: bool
    images_seen: int


class Session:
    """One call of a training job, on one process.

    Args:
        preset: What to do.
        backend: Ranks and devices.

    Raises:
        InputError: Shards, features, weights or folder cannot be used.
    """

    def __init__(self, preset: Preset, backend: Backend) -> None:
        config = resolve(preset.train)
        self._preset = replace(preset, train=config)
        self._config = config = resolve_micro_batch(config, backend)
        self._backend = backend
        self._folder = RunFolder(config.run_dir)
        self._datasets = open_datasets(config.data)
        self._semantics = open_semantics(config, self._datasets, backend.device)
        self._samples = self._open_samples()
        self._folder.check(self._preset)
        check_trackers(config.report.trackers)
        self._validation_metrics = find_validation_metrics(config, backend.any_rank_of_each)
        self._notes_of_sets = check_data(config, self._datasets, list(self._validation_metrics.chosen.values()))
        self._losses = losses = build_losses(config)
        channels = self._semantics.channels if self._semantics is not None else 0
        self._metrics, self._machine = MetricsFile(self._folder.metrics), MetricsFile(self._folder.machine)
        self._validation = Validation(config, self._validation_metrics, self._metrics, backend)
        self._store = CheckpointStore(self._folder.checkpoints, retention_of(config, self._validation.scores))
        self._backup = BackupUpdates(config, self._store, backend)
        self._restored = self._store.groups()
        networks = start_networks(config, channels, self._restored)
        self._left_out = networks.left_out
        self._state = build_state(config, networks, backend)
        self._sights = Sights(config, self._state, self._semantics, backend)
        if self._semantics is not None:  # only the leader's pictures are drawn with it
            self._semantics = replace(self._semantics, viewer=None)
        self._gan, self._step = build_gan(config, self._state, losses, backend)
        self._lock = self._lock_folder()
        if backend.is_leader:
            self._folder.clean()
            self._folder.write_config(self._preset, backend.launch_record)

    def _open_samples(self) -> TrainingSamples:
        config = self._config
        is_cached = self._semantics is not None and self._semantics.extractor is None
        features = config.semantics.cache if is_cached else None
        return TrainingSamples(config.data, config.seed, features, self._datasets)

    def _lock_folder(self) -> BinaryIO | None:
        lock = self._folder.lock() if self._backend.is_leader else None
        # Collective: before it every rank has checked the folder as it was, after it the leader writes.
        if self._backend.any_rank(self._backend.is_leader and lock is None):
            raise ConfigError(
                f"another process is training in {self._folder.path}, and two would overwrite each other's "
                "checkpoints; wait for it or stop it, or start a new run with --run-dir"
            )
        return lock

    @property
    def notes(self) -> list[str]:
        """What a person should know before the first step, one line each."""
        lines = notes_of(self._config, self._datasets, self._semantics, self._backend)
        lines += start_notes(self._config, self._restored, self._left_out)
        if self._preset.train.runtime.micro_batch_size == "auto":
            size = self._config.runtime.micro_batch_size
            lines.append(f"images per pass: {size or 'all at once'}, as many as fit in memory")
        described = {name: network.bare.description for name, network in self._state.discriminators.items()}
        lines += (f"{name}: {text}" for name, text in described.items() if text)
        lines += (f"validation sets: {line}" for line in self._notes_of_sets)
        return [*lines, *self._validation_metrics.notes]

    def run(self, progress_of: Callable[[int, int], Progress], must_stop: Callable[[], bool]) -> Outcome:
        """Resume from the newest checkpoint, train to the end or until asked to stop, and export.

        Args:
            progress_of: Builds the terminal's view from images seen and the total.
            must_stop: Whether this process was asked to save and exit.

        Raises:
            CheckpointError: All checkpoints are damaged, or they belong to another run.
            NonFiniteError: Losses or gradients stayed NaN or infinite.
            DamagedDataError: Too many samples are corrupt.
            SaveError: A checkpoint could not be written, or in the end the backup not be brought up to date.
            RankLostError: Another process of the run died or hangs.
        """
        means = RunningMeans()
        facts = self._resume(means)
        if self._is_at_end() and not self._state.validation_due:
            self._finish_export(facts)
            self._write_status("finished")
            self._backup.finish()
            return Outcome(is_finished=True, has_trained=False, images_seen=self._state.images_seen)
        new_facts = facts_of(self._config, self._datasets, self._backend, facts, self._left_out)
        tracker = self._open_tracker(new_facts)
        self._write_status("running")
        self._backup.update()
        parts = self._loop_parts(facts, new_facts, tracker, progress_of, must_stop)
        if self._state.images_seen == 0:
            self._validation.show_start(self._state.average.module, tracker)
        ending: RunState = "failed"
        try:
            with (
                parts.checkpoints.closing(),
                self._backend.naming_lost_ranks(),
                naming_memory(self._config, self._backend),
            ):
                is_finished = train(parts, self._state, means, self._loader())
            if is_finished:
                self._export(tracker, parts.facts)
            ending = "finished" if is_finished else "preempted"
        finally:
            self._record_ending(ending)
            tracker.close(TRACKED_STATUS[ending])
            self._record_ending(ending)  # again: a short run learns its ID in MLflow only now
            if ending == "failed":
                self._backup.update()
        self._backup.finish()
        return Outcome(is_finished, has_trained=True, images_seen=self._state.images_seen)

    def _is_at_end(self) -> bool:
        images_seen = self._state.images_seen
        return images_seen >= self._total_images or self._validation.is_exhausted(images_seen)

    @property
    def _total_images(self) -> int:
        return self._config.num_steps * self._config.data.batch_size

    def _resume(self, means: RunningMeans) -> Mapping[str, Any]:
        """Load the newest checkpoint and return its facts; drop what was written after it."""
        state, backend = self._state, self._backend
        checkpoint = newest_checkpoint(self._config, self._store, self._datasets, backend)
        if checkpoint is not None:
            state.load(checkpoint, backend.device)
            means.load(checkpoint.facts.get("open_report", {}), backend.device, is_leader=backend.is_leader)
            _LOG.info("resuming at %d images", checkpoint.images_seen)
        if backend.is_leader:
            self._metrics.rewind(state.images_seen)
            self._machine.rewind(state.images_seen)
            self._store.tidy(state.images_seen)
            # Interrupted once, and perhaps finished by a call that was killed afterwards.
            state.validation_due &= not self._validation.is_recorded(state.images_seen)
        state.validation_due = backend.any_rank(state.validation_due and backend.is_leader)
        facts = {} if checkpoint is None else checkpoint.facts
        self._left_out = {**facts.get(LEFT_OUT, {}), **self._left_out}
        self._adopt_older_tracking(facts)
        return facts

    def _adopt_older_tracking(self, facts: Mapping[str, Any]) -> None:
        """Keep the run's ID in MLflow where trackers look, if it began when status and checkpoints alone had it."""
        status = self._folder.read_status()
        older = (status and status.mlflow_run_id) or facts.get("mlflow_run_id")
        if self._backend.is_leader and older and known_run_id(self._folder.mlflow) is None:
            remember_run_id(self._folder.mlflow, older)

    def _loop_parts(
        self,
        resumed: Mapping[str, Any],
        facts: dict[str, Any],
        tracker: Trackers,
        progress_of: Callable[[int, int], Progress],
        must_stop: Callable[[], bool],
    ) -> LoopParts:
        config, backend, state = self._config, self._backend, self._state
        damage = DamageTally(self._datasets.num_samples, config.data.max_bad_fraction)
        if "damage" in resumed:
            damage.load(resumed["damage"])
        return LoopParts(
            config=config,
            backend=backend,
            gan=self._gan,
            step=self._step,
            prepare=StepInputs(self._semantics, backend.autocast, memory_format_of(config.runtime)),
            validate=lambda images_seen: self._validate(images_seen, tracker, must_stop),
            compare=self._validation.lines,
            is_exhausted=self._validation.is_exhausted,
            checkpoints=BackgroundWriter(self._store, self._backup.update),
            facts=facts,
            metrics=self._metrics,
            machine=self._machine,
            read_load=self._machine_load().read,
            tracker=tracker,
            progress=progress_of(state.images_seen, self._total_images),
            damage=damage,
            health=self._health(),
            must_stop=must_stop,
        )

    def _validate(self, images_seen: int, tracker: Trackers, must_stop: Callable[[], bool]) -> dict[str, float] | None:
        values = self._validation.run(self._state.average.module, images_seen, tracker, must_stop)
        if values is not None:
            self._sights.show(self._validation.shown, images_seen, tracker)
        return values

    def _machine_load(self) -> MachineLoad:
        backend = self._backend
        return MachineLoad(backend.rank, backend.world_size, backend.device, self._folder.path, backend.sum)

    def _health(self) -> GanHealth:
        health = GanHealth(self._config.report.warn_after_images)
        for images_seen, values in self._metrics.reports():
            health.add(images_seen, values)
        return health

    def _loader(self) -> Iterator[Batch]:
        config, backend = self._config, self._backend
        num_steps = config.num_steps - self._state.images_seen // config.data.batch_size
        order = RankBatches(
            self._state.images_seen, num_steps, config.data.batch_size, backend.rank, backend.world_size
        )
        loader = batches(self._samples, order, config.data.num_workers, pin_memory=backend.device.type == "cuda")
        with children_do_not_hear():
            return iter(loader)

    def _finish_export(self, facts: Mapping[str, Any]) -> None:
        """Export again if the run was killed between its last checkpoint and the end of the export."""
        backend = self._backend
        if backend.any_rank(backend.is_leader and exported_position(self._folder) != self._state.images_seen):
            tracker = self._open_tracker(facts)
            self._export(tracker, facts)
            tracker.close(TRACKED_STATUS["finished"])

    def _export(self, tracker: Trackers, facts: Mapping[str, Any]) -> None:
        provenance = Provenance(self._config, self._datasets.digest, facts.get("started"))
        self._export_best(tracker, provenance)
        export_networks(self._state, self._folder, provenance, self._backend)
        tracker.file(self._folder.generator)
        tracker.file(self._folder.config)

    def _export_best(self, tracker: Trackers, provenance: Provenance) -> None:
        if not self._backend.is_leader:
            return
        scores, saved = self._validation.scores(), self._store.positions()
        best = best_position({position: score for position, score in scores.items() if position in saved})
        if best is not None:
            weights = self._store.weights(best, "average")
            export_best(self._state.average.module, weights, self._folder, provenance.at(best))
            tracker.file(self._folder.best_generator)

    def _open_tracker(self, facts: Mapping[str, Any]) -> Trackers:
        started = facts.get("started")
        weights = self._weight_hashes() if self._backend.is_leader else {}
        return start_tracking(
            self._config, self._datasets, self._semantics, self._backend, weights, self._left_out, started
        )

    def _weight_hashes(self) -> dict[str, str]:
        trained = {"generator": self._state.generator, **self._state.discriminators}
        return weight_hashes(self._config, self._losses, {name: one.bare for name, one in trained.items()})

    def _record_ending(self, state: RunState) -> None:
        with contextlib.suppress(SaveError):  # a full disk must not hide why the run ended
            self._write_status(state)

    def _write_status(self, state: RunState) -> None:
        if self._backend.is_leader:
            seen, run_id = self._state.images_seen, known_run_id(self._folder.mlflow)
            self._folder.write_status(RunStatus(state, seen, self._total_images, run_id))

    def close(self) -> None:
        """Release the folder, networks and optimizers, so that the process group can be closed in order."""
        del self._gan, self._step, self._sights, self._state, self._samples
        if self._lock is not None:
            self._lock.close()

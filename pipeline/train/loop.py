"""The loop, top to bottom.

One step: batch -> LQ, truth and semantics on the device -> generator phase -> discriminator phase -> moving average.
Between steps, at intervals in images: report, validate, checkpoint. Nothing waits for the device but those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pipeline.checkpoint import Checkpoint, CheckpointStore
from pipeline.config import TrainConfig
from pipeline.data.batch import Batch
from pipeline.errors import NonFiniteError
from pipeline.runtime.backend import Backend
from pipeline.train.phases import DiscriminatorPhase, GeneratorPhase, StepInput
from pipeline.train.report import MetricsFile, RunningMeans
from pipeline.train.state import TrainingState, seed_step


class Tracking(Protocol):
    """What the loop asks of a tracker."""

    def metrics(self, values: dict[str, float], images_seen: int) -> None:
        """Log numbers at a position of the run."""
        ...


class Progress(Protocol):
    """What the loop tells the terminal."""

    def advance(self, images_seen: int, stage: str) -> None:
        """Move the bar."""
        ...

    def line(self, images_seen: int, values: dict[str, float]) -> None:
        """Print a report."""
        ...


@dataclass(frozen=True)
class LoopParts:
    """Everything that the loop drives, built beforehand.

    Attributes:
        config: The run's configuration.
        backend: Ranks and devices.
        generator_phase: Updates the generator.
        discriminator_phase: Updates the discriminator; None in a run on pixels alone.
        prepare: A batch on the device to the step's tensors; the flag says whether the step needs semantics.
        validate: Numbers of the averaged generator at a position; all ranks call it.
        checkpoints: Where the state is kept.
        facts: Plain values that every checkpoint carries.
        metrics: The run's metrics file; the leader writes it.
        tracker: MLflow, or nothing.
        progress: The terminal.
        must_stop: Whether this process was asked to save and leave.
    """

    config: TrainConfig
    backend: Backend
    generator_phase: GeneratorPhase
    discriminator_phase: DiscriminatorPhase | None
    prepare: Callable[[Batch, bool], StepInput]
    validate: Callable[[int], dict[str, float]]
    checkpoints: CheckpointStore
    facts: dict[str, Any]
    metrics: MetricsFile
    tracker: Tracking
    progress: Progress
    must_stop: Callable[[], bool]


def train(parts: LoopParts, state: TrainingState, means: RunningMeans, batches: Iterable[Batch]) -> bool:
    """Train from the state's position to the end.

    Returns:
        True at the end of the run, false when asked to stop before; either way a checkpoint is there.

    Raises:
        NonFiniteError: A loss became NaN or infinite; the checkpoints before are good.
        CheckpointError: A checkpoint could not be written.
    """
    config, backend = parts.config, parts.backend
    total_images = config.num_steps * config.data.batch_size
    saved_at, reported_at, reported_time = state.images_seen, state.images_seen, time.monotonic()
    for batch in batches:
        is_adversarial = is_adversarial_at(config, state.images_seen)
        seed_step(config.seed, state.images_seen, backend.rank)
        means.add(_step(parts, state, parts.prepare(batch.to(backend.device), is_adversarial), is_adversarial))
        before, state.images_seen = state.images_seen, state.images_seen + config.data.batch_size
        parts.progress.advance(state.images_seen, "SeD" if is_adversarial else "pixels")

        is_last = state.images_seen >= total_images
        if _passed(before, state.images_seen, config.report.every_images) or is_last:
            images_per_second = (state.images_seen - reported_at) / (time.monotonic() - reported_time)
            _report(parts, state.images_seen, means, images_per_second)
            reported_at, reported_time = state.images_seen, time.monotonic()
        is_due = _passed(before, state.images_seen, config.report.validate_every_images) or is_last
        if config.report.validation_sets and is_due:
            _write(parts, state.images_seen, parts.validate(state.images_seen))
        must_stop = backend.any_rank(parts.must_stop())
        if _passed(before, state.images_seen, config.report.checkpoint_every_images) or is_last or must_stop:
            _save(parts, state, means)
            saved_at = state.images_seen
        if must_stop and not is_last:
            break
    return saved_at >= total_images


def is_adversarial_at(config: TrainConfig, images_seen: int) -> bool:
    """Return whether the step at a position is judged by the discriminator."""
    return config.is_adversarial and images_seen >= config.schedule.pixel_only_images


def _passed(before: int, now: int, every: int) -> bool:
    return now // every > before // every


def _step(parts: LoopParts, state: TrainingState, step: StepInput, is_adversarial: bool) -> dict[str, Tensor]:
    schedule = parts.config.schedule
    factor = schedule.learning_rate_factor(state.images_seen)
    sr, scalars = parts.generator_phase.run(
        step, schedule.generator_learning_rate * factor, is_adversarial=is_adversarial
    )
    if is_adversarial and parts.discriminator_phase is not None:
        scalars |= parts.discriminator_phase.run(step, sr, schedule.discriminator_learning_rate * factor)
    state.average.update(schedule.ema_decay(parts.config.data.batch_size))
    return scalars


def _report(parts: LoopParts, images_seen: int, means: RunningMeans, images_per_second: float) -> None:
    values = means.take(parts.backend.sum)
    _require_finite(parts, images_seen, values)
    factor = parts.config.schedule.learning_rate_factor(images_seen)
    values["learning_rate"] = parts.config.schedule.generator_learning_rate * factor
    _write(parts, images_seen, values)
    parts.tracker.metrics({"speed/images_per_second": images_per_second}, images_seen)


def _require_finite(parts: LoopParts, images_seen: int, values: Mapping[str, float]) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(
            f"{', '.join(bad)} became NaN or infinite in the {parts.config.report.every_images} images before "
            f"{images_seen}.\n  The checkpoints in {parts.config.run_dir / 'checkpoints'} were written before. Lower "
            "the learning rate, set --schedule.gradient-clip-norm, or use --runtime.precision float32, and start a "
            "new run from them"
        )


def _write(parts: LoopParts, images_seen: int, values: dict[str, float]) -> None:
    if parts.backend.is_leader:
        parts.metrics.write(images_seen, values)
    parts.tracker.metrics(values, images_seen)
    parts.progress.line(images_seen, values)


def _save(parts: LoopParts, state: TrainingState, means: RunningMeans) -> None:
    totals = means.totals(parts.backend.sum)
    _require_finite(parts, state.images_seen, {name: total for name, (total, _) in totals.items()})
    checkpoint: Checkpoint = state.to_checkpoint(parts.facts | {"open_report": totals})
    if parts.backend.is_leader:
        parts.checkpoints.save(checkpoint)
    parts.backend.barrier()

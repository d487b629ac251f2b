"""The loop, top to bottom.

Per step: batch -> LQ, HR and semantics on the device -> GAN step -> moving average. Between steps, at intervals in
images: report, validate, checkpoint. Nothing else waits for the device, except an adaptive discriminator
(`schedule.discriminator_max_accuracy`), whose accuracy of a step decides on its update in the next one.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from pipeline.checkpoint import BackgroundWriter
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.data.batch import Batch
from pipeline.data.damage import DamageTally
from pipeline.errors import SaveError
from pipeline.runtime.backend import Backend
from pipeline.train.gan_step import Gan, GanStep, Scalars, StepResult, Turn
from pipeline.train.health import GanHealth
from pipeline.train.micro_batches import StepInput
from pipeline.train.non_finite import first_bad_output
from pipeline.train.pace import Pace
from pipeline.train.report import MetricsFile, RunningMeans
from pipeline.train.skips import StepRecord
from pipeline.train.state import AT_CHANCE, TrainingState, seed_step

_LOG = logging.getLogger(__name__)


@runtime_checkable
class Tracking(Protocol):
    """The part of a tracker that the loop calls."""

    def metrics(self, values: dict[str, float], images_seen: int) -> None:
        """Log numbers at a position of the run."""
        ...


@runtime_checkable
class Progress(Protocol):
    """The part of the terminal that the loop calls."""

    def advance(self, images_seen: int, stage: str) -> None:
        """Move the bar."""
        ...

    def report(self, images_seen: int, values: dict[str, float]) -> None:
        """Print a report."""
        ...

    def validation(self, images_seen: int, lines: list[str]) -> None:
        """Print a validation."""
        ...


@dataclass(frozen=True)
class LoopParts:
    """Everything that the loop drives, built beforehand.

    Attributes:
        config: The run's configuration.
        backend: Ranks and devices.
        gan: The networks and their losses.
        step: Makes both updates of a step.
        prepare: Turns a batch on the device into a step's tensors; the flag says whether the step needs semantics.
        validate: Metrics of the averaged generator at a position, None if interrupted; all ranks call it.
        compare: What the terminal shows of a validation at a position.
        is_exhausted: Whether the run ends at a position for want of improvement; all ranks call it.
        checkpoints: Writes the state, on the leader.
        facts: Plain values that every checkpoint carries.
        metrics: The run's metrics file; the leader writes it.
        machine: Its file of speed, memory and load; the leader writes it.
        read_load: Memory and load since the last call; all ranks call it.
        tracker: Where the run is shown.
        progress: The terminal.
        damage: Counts replacement samples.
        health: Warns of an imbalance of the two networks.
        must_stop: Whether this process was asked to save and exit.
    """

    config: TrainConfig
    backend: Backend
    gan: Gan
    step: GanStep
    prepare: Callable[[Batch, bool], StepInput]
    validate: Callable[[int], dict[str, float] | None]
    compare: Callable[[int, dict[str, float]], list[str]]
    is_exhausted: Callable[[int], bool]
    checkpoints: BackgroundWriter
    facts: dict[str, Any]
    metrics: MetricsFile
    machine: MetricsFile
    read_load: Callable[[], dict[str, float]]
    tracker: Tracking
    progress: Progress
    damage: DamageTally
    health: GanHealth
    must_stop: Callable[[], bool]


def train(parts: LoopParts, state: TrainingState, means: RunningMeans, batches: Iterable[Batch]) -> bool:
    """Train from the state's position to the end.

    Returns:
        True at the end of the run, planned or for want of improvement, false if asked to stop before; either way there
            is a checkpoint.

    Raises:
        NonFiniteError: A network's losses or gradients stayed NaN or infinite; noticed at the next report.
        DamagedDataError: Too many samples are corrupt; every rank raises it at the same step.
        SaveError: A checkpoint could not be written; earlier ones are intact.
    """
    config, backend = parts.config, parts.backend
    if state.validation_due and not _validate(parts, state):
        return False
    total_images = config.num_steps * config.data.batch_size
    pace = Pace(state.images_seen)
    is_last = state.images_seen >= total_images or parts.is_exhausted(state.images_seen)
    for batch in () if is_last else pace.timed(batches):
        turn = turn_at(config, state.images_seen, state.discriminator_accuracy)
        seed_step(config.seed, state.images_seen, backend.rank)
        inputs = parts.prepare(batch.to(backend.device, non_blocking=True), turn.is_adversarial)
        result = parts.step(parts.gan, inputs, turn)
        with state.generator.whole():
            state.average.update(config.schedule.ema_decay(config.data.batch_size))
        means.add(result.scalars | _rest_share(parts, turn))
        state.skipped.add(_record(parts, state.images_seen, batch, result))
        before, state.images_seen = state.images_seen, state.images_seen + config.data.batch_size
        parts.progress.advance(state.images_seen, "SeD" if turn.is_adversarial else "pixels")
        must_stop, cannot_save = _agree(parts, state, batch, _accuracies(parts, turn, result))
        if cannot_save:
            break

        is_last = state.images_seen >= total_images
        if turn.is_reported:
            locate = functools.partial(first_bad_output, parts.gan, inputs, turn)
            _report(parts, state, means, pace, locate)
            del locate
        del inputs  # frees its memory before the next step's are prepared
        is_due = _passed(before, state.images_seen, config.report.validate_every_images) or is_last
        if config.report.validation_sets and is_due:
            must_stop |= not _validate(parts, state)
            is_last |= parts.is_exhausted(state.images_seen)
        if _passed(before, state.images_seen, config.report.checkpoint_every_images) or is_last or must_stop:
            _save(parts, state, means)
        if must_stop or is_last:
            break
    _finish_saving(parts)
    return is_last and not state.validation_due


def turn_at(config: TrainConfig, images_seen: int, accuracy: float = AT_CHANCE) -> Turn:
    """Return which updates the step at a position makes, and with which learning rates.

    Args:
        config: The run's configuration.
        images_seen: The position.
        accuracy: Running mean of the discriminator's accuracy.
    """
    schedule = config.schedule
    of_generator, of_discriminator = schedule.learning_rates(images_seen)
    is_adversarial = config.is_adversarial and images_seen >= schedule.pixel_only_images
    after = images_seen + config.data.batch_size
    rests = is_adversarial and schedule.generator_rests(images_seen, config.data.batch_size)
    return Turn(
        generator_learning_rate=None if rests else of_generator,
        discriminator_learning_rate=of_discriminator if is_adversarial else None,
        is_reported=_passed(images_seen, after, config.report.every_images)
        or after >= config.num_steps * config.data.batch_size,
        # Not in a warm-up, where it is the only one to be updated.
        discriminator_rests=is_adversarial and not rests and schedule.discriminator_rests(accuracy),
    )


def _agree(parts: LoopParts, state: TrainingState, batch: Batch, accuracies: list[float]) -> tuple[bool, bool]:
    """Return whether any rank was asked to stop and whether any cannot save.

    Counts the step's replacement samples, and follows the discriminator's accuracy where `accuracies` holds this
    rank's. One reduction over the CPU for all of it, which waits for no device. Sums in float64 of numbers that were
    float32 are exact, so that every rank has the same accuracy to the bit, and decides the same.
    """
    for fault in batch.faults:
        _LOG.error(fault)
    batch_size = parts.config.data.batch_size
    own = (parts.must_stop(), parts.checkpoints.failure is not None, len(batch.faults), *accuracies)
    sums = parts.backend.sum(torch.tensor([float(value) for value in own], dtype=torch.float64)).tolist()
    stopping, failing, num_replaced, *summed = sums
    parts.damage.add(int(num_replaced), state.images_seen - batch_size)
    for accuracy in summed:
        state.follow_accuracy(accuracy / parts.backend.world_size, batch_size)
    return stopping > 0, failing > 0


def _is_adaptive(config: TrainConfig, turn: Turn) -> bool:
    return turn.is_adversarial and config.schedule.discriminator_max_accuracy > 0


def _accuracies(parts: LoopParts, turn: Turn, result: StepResult) -> list[float]:
    """Return the discriminators' accuracy on this rank in a step, if the schedule limits it; waits for the device."""
    if not _is_adaptive(parts.config, turn):
        return []
    names = [adversary.name for adversary in parts.gan.adversaries]
    sides = [result.scalars[f"{name}/accuracy_{side}"] for name in names for side in ("real", "fake")]
    return [float(torch.stack(sides).mean())]


def _rest_share(parts: LoopParts, turn: Turn) -> Scalars:
    """Return 1 for a step in which an adaptive discriminator rested, else 0: a report has the share of such steps."""
    if not _is_adaptive(parts.config, turn):
        return {}
    return {"discriminator/rest_share": torch.full((), float(turn.discriminator_rests), device=parts.backend.device)}


def _passed(before: int, now: int, every: int) -> bool:
    return now // every > before // every


def _record(parts: LoopParts, images_seen: int, batch: Batch, result: StepResult) -> StepRecord:
    learning_rate, _ = parts.config.schedule.learning_rates(images_seen)
    first_position = images_seen + parts.backend.rank * len(batch.keys)
    gradients = {adversary.name: adversary.trained.gradient_norms for adversary in parts.gan.adversaries}
    gradients["generator"] = parts.gan.generator.gradient_norms
    return StepRecord(images_seen, first_position, batch.keys, learning_rate, result.scalars, result.skipped, gradients)


def _report(
    parts: LoopParts,
    state: TrainingState,
    means: RunningMeans,
    pace: Pace,
    locate: Callable[[], str | None],
) -> None:
    images_seen = state.images_seen
    values = means.take(parts.backend.sum)
    values |= state.skipped.check(RunFolder(parts.config.run_dir).skipped_updates, parts.backend.rank, locate)
    values["learning_rate"], of_discriminator = parts.config.schedule.learning_rates(images_seen)
    if turn_at(parts.config, images_seen).is_adversarial:
        values["discriminator/learning_rate"] = of_discriminator
    values["data/substituted"] = float(parts.damage.total)
    _write(parts, images_seen, values)
    parts.progress.report(images_seen, values)
    for warning in parts.health.add(images_seen, values):
        _LOG.warning("at %s images: %s", f"{images_seen:,}", warning)
    load = pace.take(images_seen) | parts.read_load()
    if parts.backend.is_leader:
        parts.machine.write(images_seen, load | {"unix_s": time.time()})
    parts.tracker.metrics(load, images_seen)


def _validate(parts: LoopParts, state: TrainingState) -> bool:
    """Validate; if interrupted, the validation is due again when the run resumes."""
    values = parts.validate(state.images_seen)
    state.validation_due = values is None
    if values is not None:
        _write(parts, state.images_seen, values)
        parts.progress.validation(state.images_seen, parts.compare(state.images_seen, values))
    return values is not None


def _write(parts: LoopParts, images_seen: int, values: dict[str, float]) -> None:
    if parts.backend.is_leader:
        parts.metrics.write(images_seen, values)
    parts.tracker.metrics(values, images_seen)


def _save(parts: LoopParts, state: TrainingState, means: RunningMeans) -> None:
    totals = means.totals(parts.backend.sum)
    checkpoint = state.to_checkpoint(parts.facts | {"open_report": totals, "damage": parts.damage.to_plain()})
    if parts.backend.is_leader:
        parts.checkpoints.save(checkpoint)


def _finish_saving(parts: LoopParts) -> None:
    parts.checkpoints.wait()
    if parts.backend.any_rank(parts.checkpoints.failure is not None):
        raise parts.checkpoints.failure or SaveError("rank 0 could not write a checkpoint; its message says why")

"""A training job on this rank: stop signals, ranks, the run itself, and what the terminal shows of it."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from types import TracebackType

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset, TrainConfig
from pipeline.progress import Progress, say
from pipeline.run.backup import restore_backup
from pipeline.run.checks import resolve
from pipeline.run.session import Outcome, Session
from pipeline.runtime.backend import Backend
from pipeline.runtime.signals import StopRequest

_SHOWN = ("generator/pixel", "generator/adversarial", "discriminator/real", "discriminator/fake")


class LeaderScreen:
    """The leader's view of the loop: a bar, and a line per report."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> LeaderScreen:
        """Show nothing yet: the run's position is known only once it has resumed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the terminal."""
        self._open.__exit__(kind, error, trace)

    def begin(self, images_seen: int, total_images: int) -> LeaderScreen:
        """Show the bar."""
        self._images_seen = images_seen
        self._bar = self._open.enter_context(Progress("training", total_images, "images", start=images_seen))
        return self

    def advance(self, images_seen: int, stage: str) -> None:
        """Move the bar."""
        self._bar.description = f"training ({stage})"
        self._bar.advance(images_seen - self._images_seen)
        self._images_seen = images_seen
        if self._bar.done >= self._bar.total:
            self._open.close()

    def report(self, images_seen: int, values: dict[str, float]) -> None:
        """Print the main losses."""
        shown = (f"{name} {value:.4g}" for name, value in values.items() if name in _SHOWN)
        say(f"{images_seen:>9,} images  " + "  ".join(shown))

    def validation(self, images_seen: int, lines: list[str]) -> None:
        """Print a validation."""
        for line in lines:
            say(f"{images_seen:>9,} images  {line}")


class SilentScreen:
    """The other ranks' view: nothing."""

    def advance(self, images_seen: int, stage: str) -> None:
        """Show nothing."""

    def report(self, images_seen: int, values: dict[str, float]) -> None:
        """Show nothing."""

    def validation(self, images_seen: int, lines: list[str]) -> None:
        """Show nothing."""


def train(preset: Preset) -> Outcome:
    """Train, or resume, on this rank until the run is finished or a stop is requested.

    Raises:
        InputError: Shards, features, weights or folder cannot be used.
        RunStoppedError: The run cannot continue.
    """
    config = preset.train
    stop = StopRequest()
    stop.listen()
    backend = Backend(
        config.runtime, batch_size=config.data.batch_size, gradient_clip_norm=config.schedule.gradient_clip_norm
    )
    logging.getLogger("pipeline").setLevel(logging.INFO if backend.is_leader else logging.ERROR)
    if config.report.backup is not None:
        restore_backup(replace(preset, train=resolve(config)), backend)
    session = Session(preset, backend)
    if backend.is_leader:
        for line in session.notes:
            say(line)
    with LeaderScreen() as screen:
        begin = screen.begin if backend.is_leader else lambda seen, total: SilentScreen()
        outcome = session.run(begin, stop)
    session.close()
    backend.close()
    # The last line, so that it is seen; after it a launcher shows a traceback of its own for exit code 75.
    if backend.is_leader:
        say(_ending(config, outcome))
    return outcome


def _ending(config: TrainConfig, outcome: Outcome) -> str:
    if not outcome.is_finished:
        return f"stop requested: saved at {outcome.images_seen:,} images; rerun the same command to resume"
    if not outcome.has_trained:
        return f"{config.run_dir} is finished at {outcome.images_seen:,} images; nothing to do"
    patience = config.schedule.stop_after_no_improvement_images
    is_early = outcome.images_seen < config.num_steps * config.data.batch_size
    early = f" at {outcome.images_seen:,} images, after {patience:,} without a better {config.report.keep_best}"
    folder = RunFolder(config.run_dir)
    best = f"\nbest by {config.report.keep_best}: {folder.best_generator}" if folder.best_generator.is_file() else ""
    return f"finished{early if is_early else ''}: {folder.generator}{best}"

"""Train a super-resolution network with the semantic-aware discriminator.

Started by itself for one process, by `accelerate launch` for many; the same command on the same run folder resumes, on
any number of processes that divides the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
from types import TracebackType

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import EXIT_FAULTS, LogFormatter, Progress, run_job, say, show_traceback
from pipeline.config.schema import Preset
from pipeline.runtime.signals import EXIT_PREEMPTED, StopRequest

COMMAND = CommandLine(
    "python jobs/train_sed.py",
    "Train with the semantic-aware discriminator. Rerun the same command on the same run folder to resume.\n"
    "For several GPUs: accelerate launch --config_file infra/accelerate/node.yaml jobs/train_sed.py PRESET ...",
    (
        "rrdb_sed_p_x4 --dry-run  # what it will do, and the memory it needs",
        "rrdb_sed_p_x4 --run-dir runs/mine --data.batch-size 16 --semantics.weights openai",
        "runs/mine  # resumes with the settings in its config.json",
    ),
)
_SHOWN = ("generator/pixel", "generator/adversarial", "discriminator/real", "discriminator/fake")


class TerminalProgress:
    """The leader's view of the loop: a bar, and a line per report."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> TerminalProgress:
        """Show nothing yet: where the run stands is known only once it has resumed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the terminal."""
        self._open.__exit__(kind, error, trace)

    def begin(self, images_seen: int, total_images: int) -> TerminalProgress:
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

    def line(self, images_seen: int, values: dict[str, float]) -> None:
        """Print a report: the main losses, or the metrics of a validation."""
        shown = {name: value for name, value in values.items() if name in _SHOWN or "psnr_y" in name}
        say(f"{images_seen:>9,} images  " + "  ".join(f"{name} {value:.4g}" for name, value in shown.items()))


class SilentProgress:
    """What the other ranks show."""

    def advance(self, images_seen: int, stage: str) -> None:
        """Show nothing."""

    def line(self, images_seen: int, values: dict[str, float]) -> None:
        """Show nothing."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/train_sed.py --help`."""
    call = COMMAND.parse_preset(argv, lambda name: PRESETS.load(name, Preset).train)
    preset = dataclasses.replace(PRESETS.load(call.preset, Preset), train=call.config)
    if call.dry_run:
        from pipeline.run.dry_run import describe

        print(f"preset           {call.preset}\n{describe(preset)}\ndry run: nothing was written")
        return 0
    return train(preset)


def train(preset: Preset) -> int:
    """Train on this rank; returns the exit code."""
    from pipeline.data.features import image_manifest
    from pipeline.run.session import Session
    from pipeline.runtime.backend import Backend

    config = preset.train
    image_manifest(config.data.shards)  # before anything starts: the most common mistake
    stop = StopRequest()
    stop.listen()
    prepare_validation_photos(config.report.validation_sets)
    backend = Backend(
        config.runtime, batch_size=config.data.batch_size, gradient_clip_norm=config.schedule.gradient_clip_norm
    )
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pipeline").setLevel(logging.INFO if backend.is_leader else logging.ERROR)
    tell = say if backend.is_leader else lambda message: None
    session = Session(preset, backend)
    for line in session.notes:
        tell(line)
    with TerminalProgress() as screen:
        begin = screen.begin if backend.is_leader else lambda seen, total: SilentProgress()
        outcome = session.run(begin, stop)
    session.close()
    backend.close()
    # Last, so that it is what people see last; after it a launcher shows a traceback of its own for exit code 75.
    if not outcome.is_finished:
        tell(f"asked to stop: saved at {outcome.images_seen:,} images; rerun the same command to resume")
    elif not outcome.has_trained:
        tell(f"{config.run_dir} is finished at {outcome.images_seen:,} images; nothing to do")
    else:
        tell(f"finished: {config.run_dir / 'export' / 'generator.safetensors'}")
    return 0 if outcome.is_finished else EXIT_PREEMPTED


def run_to_exit_code(argv: list[str] | None = None) -> int:
    """Return the job's exit code, whatever happens; shows the traceback of an internal error as Python would."""
    try:
        return run_job(main, argv)
    except Exception as error:  # noqa: BLE001 - a failed rank leaves by `os._exit`: the last place to show its traceback
        show_traceback(type(error), error, error.__traceback__)
        return EXIT_FAULTS


if __name__ == "__main__":
    code = run_to_exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    if "RANK" in os.environ and code not in (0, EXIT_PREEMPTED):
        # A rank that failed alone must not wait for the others in a destructor; the launcher ends them.
        os._exit(code)
    sys.exit(code)

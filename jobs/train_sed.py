"""Train a generator with the semantic-aware discriminator, on one process or many.

`accelerate launch jobs/train_sed.py [PRESET] --run-dir DIR`; the same command on the same folder goes on where it was,
on any number of processes that divides the batch. `--dry-run` says what would be done.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import traceback

from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import EXIT_FAULTS, JobStoppedError, Progress, run_job, say
from pipeline.config.presets import apply_flags, load_preset, preset_names, split_preset
from pipeline.config.schema import Preset
from pipeline.data.features import image_manifest
from pipeline.errors import RunStoppedError
from pipeline.run.dry_run import describe
from pipeline.run.session import Session
from pipeline.runtime.backend import Backend
from pipeline.runtime.signals import EXIT_PREEMPTED, StopRequest

_SHOWN = ("generator/pixel", "generator/adversarial", "discriminator/real", "discriminator/fake")


class TerminalProgress:
    """The leader's view of the loop: a bar, and a line at every report."""

    def __init__(self, images_seen: int, total_images: int) -> None:
        self._images_seen = images_seen
        self._bar = Progress("training", total_images, "images", start=images_seen)
        self._bar.__enter__()

    def advance(self, images_seen: int, stage: str) -> None:
        """Move the bar."""
        self._bar.description = f"training ({stage})"
        self._bar.advance(images_seen - self._images_seen)
        self._images_seen = images_seen
        if self._bar.done >= self._bar.total:
            self._bar.__exit__(None, None, None)

    def line(self, images_seen: int, values: dict[str, float]) -> None:
        """Print a report: the main losses, or a validation's numbers."""
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
    name, flags = split_preset(argv)
    preset = load_preset(name)
    description = (
        "Train with the semantic-aware discriminator; the same command on the same folder resumes.\n\n"
        f"Preset: {name} (first argument; known: {', '.join(preset_names())})"
    )
    config, dry_run = apply_flags(preset.train, flags, "accelerate launch jobs/train_sed.py [PRESET]", description)
    preset = dataclasses.replace(preset, train=config)
    if dry_run:
        sys.stdout.write(f"preset           {name}\n{describe(preset)}\ndry run: nothing was read or written\n")
        return 0
    image_manifest(config.data.shards)  # before anything starts: the commonest mistake
    return train(preset)


def train(preset: Preset) -> int:
    """Train on this process's share; returns the exit code."""
    config = preset.train
    stop = StopRequest()
    stop.listen()
    prepare_validation_photos(config.report.validation_sets)
    backend = Backend(
        config.runtime, batch_size=config.data.batch_size, gradient_clip_norm=config.schedule.gradient_clip_norm
    )
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pipeline").setLevel(logging.INFO if backend.is_leader else logging.ERROR)
    tell = say if backend.is_leader else lambda message: None
    session = Session(preset, backend)
    for line in session.notes:
        tell(line)
    try:
        outcome = session.run(TerminalProgress if backend.is_leader else lambda seen, total: SilentProgress(), stop)
    except RunStoppedError as error:
        raise JobStoppedError(f"error: {error}", EXIT_FAULTS) from error
    if not outcome.is_finished:
        tell(f"asked to stop: saved at {outcome.images_seen:,} images; the same command goes on")
    elif not outcome.has_trained:
        tell(f"{config.run_dir} is finished at {outcome.images_seen:,} images; nothing to do")
    else:
        tell(f"finished: {config.run_dir / 'export' / 'generator.safetensors'}")
    session.close()
    backend.close()
    return 0 if outcome.is_finished else EXIT_PREEMPTED


def run_to_exit_code(argv: list[str] | None = None) -> int:
    """Return the job's exit code, whatever happens; an error of our own is shown as Python would show it."""
    try:
        return run_job(main, argv)
    except Exception:  # noqa: BLE001 - a rank that failed leaves by `os._exit`: the last place to show its traceback
        traceback.print_exc()
        return EXIT_FAULTS


if __name__ == "__main__":
    code = run_to_exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    if "RANK" in os.environ and code not in (0, EXIT_PREEMPTED):
        # A rank that failed alone must not wait for the others in a destructor; the launcher ends them.
        os._exit(code)
    sys.exit(code)

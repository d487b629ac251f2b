"""Draw the generated photos of the experiment `mechanism`, and train its extractor on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.command_line import CommandLine
from jobs.terminal import run_job
from pipeline.progress import Progress, say
from shards.errors import InputError
from shards.format.files import check_writable

COMMAND = CommandLine(
    "python jobs/draw_shapes.py",
    "Draw photos of shapes whose fine texture follows from what they are, to train on and to measure with, and train\n"
    "a small network that knows the shapes: the semantics of jobs/compare.py mechanism.",
    (
        "# then shard them: python jobs/shard.py --source runs/shapes/photos --output runs/shapes/shards \\\n"
        "  --sub-image-px 192 --stride-px 192; and compare: python jobs/compare.py mechanism --workers 2",
    ),
)
# Apart, so that no drawing is seen twice.
_VALIDATION_SEED, _EXTRACTOR_SEED = 1_000_000, 2_000_000


@dataclass(frozen=True)
class DrawShapesConfig:
    """How many, and where."""

    output: Path = Path("runs/shapes")
    """Folder for photos/, validation/HR/ and extractor.safetensors; what is there already is kept."""
    num_photos: int = 240
    """Photos to train on."""
    num_validation: int = 24
    """Photos to measure with."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/draw_shapes.py --help`."""
    config = COMMAND.parse(DrawShapesConfig, argv)

    from pipeline.experiments.shapes.drawing import write_drawings

    if min(config.num_photos, config.num_validation) < 1:
        raise InputError("--num-photos and --num-validation must be at least 1")
    check_writable(config.output)
    with Progress("drawing", config.num_photos + config.num_validation, "photos") as bar:
        write_drawings(config.output / "photos", range(config.num_photos), bar.advance)
        validation = range(_VALIDATION_SEED, _VALIDATION_SEED + config.num_validation)
        write_drawings(config.output / "validation" / "HR", validation, bar.advance)
    extractor = config.output / "extractor.safetensors"
    if not extractor.is_file():
        from pipeline.experiments.shapes.extractor import train_extractor

        accuracy = train_extractor(extractor, _EXTRACTOR_SEED)
        say(f"extractor: {extractor}, names {accuracy:.1%} of the cells of unseen drawings right")
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))

"""Upscale an image, or every image of a folder, with any model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import end_with_faults, run_job
from pipeline.inference.tiles import DEFAULT_OVERLAP_PX, DEFAULT_TILE_PX, check_tiles
from pipeline.progress import Progress, say
from shards.errors import InputError

COMMAND = CommandLine(
    "python jobs/upscale.py",
    "Upscale an image, or every image of a folder, with any model. Any size: large images are processed in tiles.",
    (
        "runs/rrdb_sed_p_x4 photo.jpg photo_x4.png",
        "RealESRGAN_x4plus.pth photos/ upscaled/ --tile-px 256  # when memory runs out",
    ),
)


@dataclass(frozen=True)
class UpscaleConfig:
    """What to upscale. The defaults are the demo's held-out photos and its run."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/sed"
    """A .safetensors or .pth file, a run folder, or models:/NAME@ALIAS."""
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")] = Path("demo/photos/validation/HR")
    """An image, or a folder of images."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")] = Path("demo/upscaled")
    """A PNG file for an image, or a folder for a folder."""
    overwrite: bool = False
    """Replace existing files that an earlier upscaling did not write; inputs are never replaced."""
    tile_px: int = DEFAULT_TILE_PX
    """Side of a tile in input pixels; images with a larger side are split. Lower it when memory runs out."""
    overlap_px: int = DEFAULT_OVERLAP_PX
    """Overlap of neighbouring tiles in input pixels, blended so that no seam shows; at most half a tile."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """bf16 and fp16 are faster on a GPU, and change pixels by a few gray levels."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_tiles(self.tile_px, self.overlap_px)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/upscale.py --help`."""
    config = COMMAND.parse(UpscaleConfig, argv)
    prepare_validation_photos([config.input])

    from pipeline.data.evaluation import passed_over
    from pipeline.inference.model_names import check_model_exists
    from pipeline.inference.upscale_files import clean_stale_pictures, plan_outputs
    from shards.format.rejects import NOTE_TEXTS
    from shards.format.storage import parse_local_path

    files = plan_outputs(
        config.input, config.output, also_read=[parse_local_path(config.model)], overwrite=config.overwrite
    )
    if config.input.is_dir() and (others := passed_over([config.input])):
        say(others)
    check_model_exists(config.model)  # before torch is imported

    from pipeline.inference.device import best_device
    from pipeline.inference.named_model import open_model
    from pipeline.inference.upscale_many import upscale_files

    model = open_model(config.model, unfinished=True)
    say(f"generator: {model.weights}")
    model.generator.to(best_device())
    clean_stale_pictures(files)
    faults: list[str] = []
    sizes = {"tile_px": config.tile_px, "overlap_px": config.overlap_px}
    with Progress("upscaling", len(files), "images") as progress:
        for source, outcome in upscale_files(model, files, **sizes, precision=config.precision):
            if isinstance(outcome, InputError):
                if not config.input.is_dir():
                    raise outcome
                faults.append(str(outcome))
            elif outcome:
                say(f"{source}: {', '.join(NOTE_TEXTS[note] for note in outcome)}")
            progress.advance(1)
    say(f"wrote {len(files) - len(faults)} image(s): {config.output}")
    return end_with_faults(faults, len(files), "images")


if __name__ == "__main__":
    sys.exit(run_job(main))

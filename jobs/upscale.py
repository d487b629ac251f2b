"""Enlarge an image, or every image of a folder, with any model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.data.evaluation import image_files, read_image
from pipeline.inference.named_model import open_model
from pipeline.inference.pictures import write_png
from pipeline.inference.upscale import DEFAULT_OVERLAP_PX, DEFAULT_TILE_PX, check_tiles, upscale
from shards.errors import InputError
from shards.format.files import check_writable


@dataclass(frozen=True)
class UpscaleConfig:
    """What to enlarge. With no argument: the demo's held-out photos with the demo's run."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, a run folder, or models:/NAME@ALIAS."""
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")] = Path("demo/photos/validation/HR")
    """An image, or a folder of images."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")] = Path("demo/upscaled")
    """A PNG file for an image, a folder for a folder."""
    tile_px: int = DEFAULT_TILE_PX
    """Larger images are enlarged in tiles of this side, LQ px; lower it when memory runs out."""
    overlap_px: int = DEFAULT_OVERLAP_PX
    """Overlap of neighbouring tiles, LQ px; they are blended, so no seam shows."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_tiles(self.tile_px, self.overlap_px)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/upscale.py --help`."""
    config = tyro.cli(UpscaleConfig, args=argv, prog="python jobs/upscale.py", description=__doc__)
    prepare_validation_photos([config.input])
    jobs = _pairs(config)
    model = open_model(config.model)
    model.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    with Progress("upscaling", len(jobs), "images") as progress:
        for source, target in jobs:
            sr = upscale(
                model.generator, read_image(source), model.scale, tile_px=config.tile_px, overlap_px=config.overlap_px
            )
            write_png(target, sr)
            progress.advance(1)
    say(f"wrote {len(jobs)} image(s): {config.output}")
    return 0


def _pairs(config: UpscaleConfig) -> list[tuple[Path, Path]]:
    if config.input.is_dir():
        check_writable(config.output)
        if config.output.is_file():
            raise InputError(f"{config.input} is a folder, but {config.output} is a file; give an output folder")
        files = image_files(config.input)
        targets = [config.output / f"{file.stem}.png" for file in files]
        if len(set(targets)) != len(targets):
            raise InputError(f"two images in {config.input} differ only in their suffix; rename one")
        return list(zip(files, targets, strict=True))
    if not config.input.is_file():
        raise InputError(f"no such image or folder: {config.input}")
    target = config.output / f"{config.input.stem}.png" if config.output.is_dir() else config.output
    if target.suffix.lower() != ".png":
        raise InputError(f"the output is written as PNG, but {target} does not end in .png; name it so")
    check_writable(target.parent)
    return [(config.input, target)]


if __name__ == "__main__":
    sys.exit(run_job(main))

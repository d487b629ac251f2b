"""Draw a degradation: a grid of HR and a few variants, each with the parameters that it was drawn with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.terminal import run_job
from pipeline.progress import say
from shards.config import DEFAULT_RECIPE
from shards.errors import InputError
from shards.format.expansion import expand
from shards.format.files import check_writable, clean_stale_kind
from shards.format.outputs import check_output_files

_JOB = "preview"
_MAX_PANELS = 64

COMMAND = CommandLine(
    "python jobs/preview.py",
    "Draw a degradation: a grid of HR and a few variants, each with the parameters that it was drawn with. The seeds\n"
    "are those of the shards, so a variant looks as it does in training, uncropped.",
    (
        "data/shards/df2k_realworld_x4 --samples 3 --variants 3",
        "data/shards/df2k_realworld_x4 --recipe mine.toml --run runs/mine  # also into the run's MLflow page",
    ),
)


@dataclass(frozen=True)
class PreviewConfig:
    """What to draw. The defaults are the demo's shards and their own degradation."""

    shards: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")] = Path("demo/shards")
    """Folder of image shards."""
    recipe: str = DEFAULT_RECIPE
    """A recipe that ships with the project, or a path that ends in .toml. default: the one that the shards record; of
    paired shards, their LQ images as they are."""
    output: Path = Path("demo/preview.png")
    """The picture, a PNG."""
    overwrite: bool = False
    """Replace an existing file that an earlier preview did not write."""
    samples: int = 4
    """Rows, 1 to 64: sub-images, evenly spread over the shards."""
    variants: int = 4
    """Degradations of each, 1 to 64."""
    canvas_px: int | None = None
    """Side of the HR square in pixels; the whole sub-image when not given."""
    run: Path | None = None
    """Also log the picture to this run folder's run in MLflow."""

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "recipe", expand(self.recipe))
        for field in ("samples", "variants"):
            value = getattr(self, field)
            if not 1 <= value <= _MAX_PANELS:
                raise InputError(f"--{field} must be from 1 to {_MAX_PANELS}; got {value}")
        if self.output.suffix.lower() != ".png":
            raise InputError(f"--output must end in .png; got {self.output}")


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/preview.py --help`."""
    config = COMMAND.parse(PreviewConfig, argv)

    from pipeline.data.datasets import image_manifest
    from shards.degradation.recipe import load_recipe
    from shards.degradation.recorded import recorded_recipe
    from shards.read.reader import ShardSet

    manifest = image_manifest(config.shards)
    is_given = config.recipe != DEFAULT_RECIPE
    own = manifest.images
    if is_given:
        recipe = load_recipe(config.recipe)
    else:
        recipe = recorded_recipe(own.recipe, own.recipe_table) if own.has_recipe else None
    images = ShardSet(config.shards, manifest)

    from pipeline.inference.degradation_preview import draw_preview
    from pipeline.inference.pictures import is_picture_of, write_png
    from pipeline.inference.tracked_run import find_tracked_run

    run = None if config.run is None else find_tracked_run(config.run)
    check_output_files(
        [config.output],
        [config.shards, *([Path(config.recipe)] if is_given else [])],
        is_own=lambda path: is_picture_of(path, _JOB),
        overwrite=config.overwrite,
    )
    check_writable(config.output.parent)
    picture = draw_preview(
        images, recipe, num_samples=config.samples, num_variants=config.variants, canvas_px=config.canvas_px
    )
    clean_stale_kind(config.output.parent, config.output.name)  # what a killed call left of it
    write_png(config.output, picture, job=_JOB)
    say(f"picture: {config.output}")
    if run is not None:
        run.log({f"degradation/{recipe.name if recipe else own.recipe}": picture})
        say(f"and in MLflow, run {run.run_id}")
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))

"""Draw a degradation: a grid of HR and a few variants, each with the parameters that it was drawn with.

With `--rejected`, draw what the rules of curation removed instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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
from shards.format.png import Pixels

_JOB = "preview"
_MAX_PANELS = 64

COMMAND = CommandLine(
    "python jobs/preview.py",
    "Draw a degradation: a grid of HR and a few variants, each with the parameters that it was drawn with. The seeds\n"
    "are those of the shards, so a variant looks as it does in training, uncropped. With --rejected: what rules of\n"
    "curation removed, a row for each rule.",
    (
        "data/shards/df2k_realworld_x4 --samples 3 --variants 3",
        "data/shards/df2k_realworld_x4 --recipe mine.toml --run runs/mine  # also into the run's MLflow page",
        "data/shards/df2k_x4 --rejected --source data/DF2K/HR --samples 8",
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
    """Rows, 1 to 64: sub-images, evenly spread over the shards. With --rejected: photos or sub-images per rule, these
    from the nearest to its bound to the furthest."""
    variants: int = 4
    """Degradations of each, 1 to 64."""
    canvas_px: int | None = None
    """Side of the HR square in pixels; the whole sub-image when not given."""
    run: Path | None = None
    """Also log the picture to this run folder's run in MLflow."""
    rejected: bool = False
    """Draw what the rules of curation removed; needs `source`."""
    source: tuple[Path, ...] = ()
    """With --rejected: folders of the photos that the shards were made from, in the same order."""

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "recipe", expand(self.recipe))
        for field in ("samples", "variants"):
            value = getattr(self, field)
            if not 1 <= value <= _MAX_PANELS:
                raise InputError(f"--{field} must be from 1 to {_MAX_PANELS}; got {value}")
        if self.output.suffix.lower() != ".png":
            raise InputError(f"--output must end in .png; got {self.output}")
        if self.rejected is not bool(self.source):
            raise InputError(
                "--rejected and --source belong together: removed photos are in no shard, so they are read from their "
                "folders; give both or none"
            )


@dataclass(frozen=True)
class _Drawing:
    """A picture that can be drawn: its inputs were found and checked."""

    key: str
    """Name of the picture in MLflow."""
    inputs: tuple[Path, ...]
    """What the picture must not replace."""
    draw: Callable[[], Pixels | None]


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/preview.py --help`."""
    config = COMMAND.parse(PreviewConfig, argv)
    drawing = _prepare_rejected(config) if config.rejected else _prepare_degradation(config)

    from pipeline.inference.pictures import is_picture_of, write_png
    from pipeline.inference.tracked_run import find_tracked_run

    run = None if config.run is None else find_tracked_run(config.run)
    check_output_files(
        [config.output],
        [config.shards, *drawing.inputs],
        is_own=lambda path: is_picture_of(path, _JOB),
        overwrite=config.overwrite,
    )
    check_writable(config.output.parent)
    picture = drawing.draw()
    if picture is None:
        say("the rules of curation removed nothing: there is nothing to draw")
        return 0
    clean_stale_kind(config.output.parent, config.output.name)  # what a killed call left of it
    write_png(config.output, picture, job=_JOB)
    say(f"picture: {config.output}")
    if run is not None:
        run.log({drawing.key: picture})
        say(f"and in MLflow, run {run.run_id}")
    return 0


def _prepare_degradation(config: PreviewConfig) -> _Drawing:
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

    return _Drawing(
        f"degradation/{recipe.name if recipe else own.recipe}",
        (Path(config.recipe),) if is_given else (),
        lambda: draw_preview(
            images, recipe, num_samples=config.samples, num_variants=config.variants, canvas_px=config.canvas_px
        ),
    )


def _prepare_rejected(config: PreviewConfig) -> _Drawing:
    from shards.write.generations import read_generations
    from shards.write.sources import discover, paths_of

    plans = read_generations(config.shards)
    if not plans:
        raise InputError(f"{config.shards} holds no plan.json; give the output of jobs/shard.py")
    if not plans[0].settings.curation.to_plain():
        raise InputError(f"the shards in {config.shards} were written without rules of curation (docs/data.md)")
    paths = paths_of(discover(config.source))

    from pipeline.inference.rejected_preview import draw_rejected

    return _Drawing("curation/rejected", config.source, lambda: draw_rejected(plans, paths, config.samples))


if __name__ == "__main__":
    sys.exit(run_job(main))

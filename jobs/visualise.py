"""Show what the discriminator of a run sees: its decisions on HR and SR, its features, its attention."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import end_with_faults, run_job
from pipeline.errors import TrackingError
from pipeline.progress import say
from shards.errors import InputError

if TYPE_CHECKING:
    from shards.format.png import Pixels

_FEWEST_CELLS = 16
_CLASSES = (2, 10)  # as many as there are colours that can be told apart

COMMAND = CommandLine(
    "python jobs/visualise.py",
    "Show what the discriminator of a run sees, as pictures with numbers beside them: its decisions on HR and SR,\n"
    "t-SNE of its features with and without semantics, and the attention of its fusion block.",
    (
        "runs/rrdb_sed_p_x4 --sets data/benchmarks/Urban100 --photos 8",
        "runs/rrdb_sed_p_x4 --against runs/rrdb_p_x4 --sets data/benchmarks/Set14  # beside a plain discriminator",
        "runs/rrdb_sed_p_x4 --sets data/benchmarks/Set14 --query-photo baboon --queries 120,80 25%,50%",
    ),
)


@dataclass(frozen=True)
class VisualiseConfig:
    """What to show. The defaults are the demo's run and its held-out photos."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/sed"
    """A run folder with its exports."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets, in the layouts of jobs/evaluate.py."""
    photos: int = 5
    """Photos shown, evenly spread over the sets; of those above 768 px the middle."""
    against: Path | None = None
    """Another run folder, such as of a plain discriminator: its features are shown beside."""
    queries: tuple[str, ...] = ()
    """Points whose attention is shown, X,Y in pixels or X%,Y% from the upper left corner; by default those two of one
    crop whose semantics are least alike."""
    query_photo: str = ""
    """Name of the photo that --queries are points of, which is then among those shown; by default the first."""
    classes: int = 6
    """Classes of regions, 2 to 10: clusters of the frozen vision model's map."""
    cells: int = 2000
    """Cells of 16 px whose features are compared, at least 16."""
    seed: int = 0
    """Seed of the clusters and of the choice of cells."""
    output: Path | None = None
    """Folder of the pictures and of visualise.json; by default `visualised` in the run folder."""
    overwrite: bool = False
    """Replace existing files that this job did not write; inputs are never replaced."""
    mlflow: bool = True
    """Also log the pictures to the run in MLflow, where there is one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.photos < 1:
            raise InputError(f"--photos must be at least 1; got {self.photos}")
        if not _CLASSES[0] <= self.classes <= _CLASSES[1]:
            raise InputError(f"--classes must be from {_CLASSES[0]} to {_CLASSES[1]}; got {self.classes}")
        if self.cells < _FEWEST_CELLS:
            raise InputError(f"--cells must be at least {_FEWEST_CELLS}; got {self.cells}")
        if self.cells < self.photos:
            raise InputError(f"--cells must be at least --photos, a cell of each; got {self.cells} and {self.photos}")
        if self.query_photo and not self.queries:
            raise InputError("--query-photo needs --queries: points of that photo, such as 120,80 or 25%,50%")
        if self.seed < 0:
            raise InputError(f"--seed must be at least 0; got {self.seed}")


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/visualise.py --help`."""
    config = COMMAND.parse(VisualiseConfig, argv)

    from pipeline.data.evaluation import check_sets
    from pipeline.inference.model_names import run_folder
    from pipeline.inference.visualise.points import parse_point

    if not config.sets:
        raise InputError("--sets names no evaluation set; give a folder of HR images")
    run = run_folder(config.model)
    queries = [parse_point(text) for text in config.queries]
    prepare_validation_photos(config.sets)
    check_sets(config.sets)  # before torch is imported

    from pipeline.inference.visualise.request import VisualiseRequest

    request = VisualiseRequest(
        run=run,
        sets=config.sets,
        against=config.against,
        max_photos=config.photos,
        queries=queries,
        query_photo=config.query_photo,
        num_classes=config.classes,
        num_cells=config.cells,
        seed=config.seed,
        output=config.output or run / "visualised",
    )
    request.check(overwrite=config.overwrite)

    from pipeline.inference.visualise.visualise import visualise

    shown = visualise(request)
    print("\n".join(shown.tables))
    if config.mlflow:
        _log(run, shown.pictures)
    return end_with_faults(shown.faults, shown.num_photos, "photos")


def _log(run: Path, pictures: Mapping[str, Pixels]) -> None:
    """Add the pictures to the run in MLflow; says so where there is none: the files are complete."""
    from pipeline.inference.tracked_run import find_tracked_run

    try:
        tracked = find_tracked_run(run)
        tracked.log(pictures)
        say(f"and in MLflow, run {tracked.run_id}")
    except (InputError, TrackingError) as error:
        say(str(error))


if __name__ == "__main__":
    sys.exit(run_job(main))

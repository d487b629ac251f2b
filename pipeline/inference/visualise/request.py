"""What is to be shown and where it goes, checked before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.data.evaluation import set_files
from pipeline.inference.exports import why_no_discriminator
from pipeline.inference.model_names import model_files
from pipeline.inference.pictures import is_picture_of
from pipeline.inference.visualise.points import Point
from pipeline.runtime.launch import launched_world_size
from shards.errors import InputError
from shards.format.files import check_writable
from shards.format.outputs import check_output_files
from shards.format.storage import read_whole
from shards.schema import SchemaError, parse_json

_MAX_BYTES = 1 << 28
JOB = "visualise"
KIND = "sed-trainer visualise"
PICTURES = ("decisions", "features", "attention")
"""What each discriminator of a run may have a picture of."""


@dataclass(frozen=True)
class VisualiseRequest:
    """What to show.

    Attributes:
        run: Folder of the run, see `run_folder`.
        sets: Checked evaluation sets.
        against: Folder of another run, whose first discriminator's features are shown too; None for none.
        max_photos: Photos at most, evenly spread over the sets.
        queries: Points of a photo whose attention is shown; empty: found by a rule.
        query_photo: Name of that photo; empty: the first.
        num_classes: Clusters of the semantics.
        num_cells: Cells of 16 px whose features are compared.
        seed: Of the clusters and of the choice of cells.
        output: Folder of the files.
    """

    run: Path
    sets: Sequence[Path]
    against: Path | None
    max_photos: int
    queries: Sequence[Point]
    query_photo: str
    num_classes: int
    num_cells: int
    seed: int
    output: Path

    @property
    def document(self) -> Path:
        """The numbers, as JSON."""
        return self.output / "visualise.json"

    def picture(self, discriminator: str, kind: str) -> Path:
        """Return the file of one of `PICTURES`."""
        return self.output / f"{discriminator}_{kind}.png"

    def check(self, *, overwrite: bool) -> None:
        """Check the libraries, the runs and the files.

        Raises:
            InputError: A library is missing; a folder is no run with a discriminator; a file that would be written is
                an input, another program's (without `overwrite`), or in a folder that cannot be written; or this is
                one of several processes.
        """
        _check_process()
        runs = [self.run] if self.against is None else [self.run, self.against]
        names = check_run(self.run)
        for other in runs[1:]:
            check_run(other)
        pictures = [self.picture(name, kind) for name in names for kind in PICTURES]
        inputs = [*model_files(map(str, runs)), *set_files(self.sets)]
        check_output_files([*pictures, self.document], inputs, is_own=_is_own, overwrite=overwrite)
        check_writable(self.output)


def _check_process() -> None:
    if launched_world_size() > 1:
        raise InputError(
            f"a picture shows every photo, and this is one of {launched_world_size()} processes; start the job without "
            "a launcher"
        )
    if importlib.util.find_spec("sklearn") is None:
        raise InputError("t-SNE and clusters are scikit-learn's, which is not installed: pip install -e '.[demo]'")


def check_run(path: Path) -> list[str]:
    """Check that a folder is a run that has exported all of its discriminators; return their names.

    Raises:
        InputError: It is not, or its configuration has faults.
    """
    run = RunFolder(path)
    if not run.config.is_file():
        raise InputError(
            f"{path} is no run folder: no {run.config.name} in it; a file of weights is of one network: name the "
            "folder of its run"
        )
    config = run.read_config().train
    for name in config.discriminators:
        if reason := why_no_discriminator(run, config, name):
            raise InputError(f"{path} has no discriminator to show: {reason}")
    return list(config.discriminators)


def _is_own(path: Path) -> bool:
    return is_picture_of(path, JOB) or is_document(path)


def is_document(path: Path) -> bool:
    """Return whether a file is the JSON document of an earlier call."""
    try:
        document = parse_json(read_whole(path, _MAX_BYTES))
    except (OSError, SchemaError):
        return False
    return isinstance(document, dict) and document.get("kind") == KIND

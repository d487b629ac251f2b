"""Evaluates a model that a user names, and writes what was asked for: the JSON document, a table, a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.evaluation import EvaluationPair, passed_over_in_sets, read_pair, set_files, set_images
from pipeline.data.layouts import SetImage
from pipeline.inference.device import best_device
from pipeline.inference.evaluate import Evaluated, measure_set
from pipeline.inference.evaluation_report import EvaluationReport, is_evaluation, is_image_table
from pipeline.inference.named_model import open_model
from pipeline.inference.pictures import before_and_after, is_picture_of, write_png
from pipeline.metrics.choice import choose_metrics
from pipeline.progress import Progress, say
from shards.errors import InputError
from shards.format.files import check_writable, write_atomically
from shards.format.outputs import check_output_files
from shards.format.storage import parse_local_path

_JOB = "evaluate"


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results go.

    Attributes:
        document: The JSON document.
        table: CSV of one line per image; None for none.
        picture: PNG of every image beside bicubic and HR; None for none.
    """

    document: Path
    table: Path | None
    picture: Path | None

    def check(self, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """Check that they can be written, before any work.

        Raises:
            InputError: One is an input, somebody's file (without `overwrite`), or in a folder that cannot be written.
        """
        given = [path for path in (self.document, self.table, self.picture) if path is not None]
        check_output_files(
            given,
            inputs,
            is_own=lambda path: is_evaluation(path) or is_image_table(path) or is_picture_of(path, _JOB),
            overwrite=overwrite,
        )
        for path in given:
            check_writable(path.parent)

    def write(self, report: EvaluationReport) -> None:
        """Write them all; no picture where no image could be used."""
        report.write(self.document)
        if self.table is not None:
            write_atomically(self.table, report.csv())
        if self.picture is not None and report.images:
            write_png(self.picture, before_and_after([image] for image in report.images), job=_JOB)
            say(f"picture: {self.picture}")


def evaluate_model(
    name: str, sets: Sequence[Path], metrics: Sequence[str], files: EvaluationFiles, *, overwrite: bool
) -> EvaluationReport:
    """Evaluate a model on sets, once everything that was asked for is known to be possible; writes nothing.

    Args:
        name: The model; see `open_model`.
        sets: Checked evaluation sets.
        metrics: Names of metrics.
        files: Where the results will go.
        overwrite: See `EvaluationFiles.check`.

    Raises:
        CheckpointError: The model cannot be loaded.
        InputError: A metric is unknown, none can be computed, or a file cannot be written.
    """
    chosen, not_computed = choose_metrics(metrics)
    if others := passed_over_in_sets(sets):
        say(others)
    files.check([parse_local_path(name), *set_files(sets)], overwrite=overwrite)
    model = open_model(name, unfinished=True)
    say(f"generator: {model.weights}")
    model.generator.to(best_device())
    num_images = sum(len(set_images(folder, model.scale)) for folder in sets)
    report = EvaluationReport(name, model, tuple(chosen), not_computed)
    with Progress("evaluating", num_images, "images") as progress:

        def read(image: SetImage, scale: int) -> EvaluationPair | None:
            try:
                return read_pair(image, scale)
            except InputError as error:
                report.faults.append(str(error))
                return None

        def keep(set_name: str, evaluated: list[Evaluated]) -> None:
            report.add(set_name, evaluated[0])

        for folder in sets:
            measure_set([model.generator], folder, model.scale, chosen, read=read, keep=keep, advance=progress.advance)
    return report

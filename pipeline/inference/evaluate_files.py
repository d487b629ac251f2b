"""Evaluates models that a user names, and writes the requested files: the JSON document, a table, a picture, a figure.

In several processes the leader writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.evaluation import set_files
from pipeline.inference.evaluate import Evaluated
from pipeline.inference.evaluation import open_evaluation
from pipeline.inference.evaluation_report import EvaluationReport, is_evaluation, is_image_table
from pipeline.inference.figure import check_figure, is_figure, write_figure
from pipeline.inference.model_names import model_files
from pipeline.inference.pictures import OURS, before_and_after, is_picture_of, write_png
from pipeline.progress import say
from pipeline.runtime.launch import launched_world_size
from shards.errors import InputError
from shards.format.files import check_writable, clean_stale_kind, write_atomically
from shards.format.outputs import check_output_files

_JOB = "evaluate"


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results go.

    Attributes:
        document: The JSON document.
        table: CSV of one line per model and image; None for none.
        picture: PNG of every image next to bicubic and HR; None for none.
        figure: PNG or SVG of perception against distortion; None for none.
    """

    document: Path
    table: Path | None
    picture: Path | None
    figure: Path | None

    def check(self, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """Check that they can be written, before any work.

        Raises:
            InputError: One is an input, another program's file (without `overwrite`), or in a read-only folder; or a
                picture is requested in several processes.
        """
        if self.picture is not None and launched_world_size() > 1:
            raise InputError(
                f"--picture shows every image, and each of {launched_world_size()} processes has only its share of "
                "them; draw the picture in a call of one process"
            )
        check_output_files(self._given, inputs, is_own=_is_own, overwrite=overwrite)
        for path in self._given:
            check_writable(path.parent)

    @property
    def _given(self) -> list[Path]:
        return [path for path in (self.document, self.table, self.picture, self.figure) if path is not None]

    def write(self, report: EvaluationReport) -> None:
        """Write them all; no picture where no image could be used. What a killed call left of them goes."""
        for path in self._given:
            clean_stale_kind(path.parent, path.name)
        report.write(self.document)
        if self.table is not None:
            self.table.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.table, report.csv())
        if self.picture is not None and report.pictured:
            labels = OURS if len(report.models) == 1 else [model.label for model in report.models]
            write_png(self.picture, before_and_after(report.pictured, labels), job=_JOB)
            say(f"picture: {self.picture}")
        if self.figure is not None:
            write_figure(self.figure, report)
            say(f"figure: {self.figure}")


def _is_own(path: Path) -> bool:
    return is_evaluation(path) or is_image_table(path) or is_picture_of(path, _JOB) or is_figure(path)


def evaluate_models(
    names: Mapping[str, str], sets: Sequence[Path], metrics: Sequence[str], files: EvaluationFiles, *, overwrite: bool
) -> EvaluationReport | None:
    """Evaluate models on sets, after checking that every requested metric and file is possible; writes nothing.

    All ranks must call; see `open_evaluation`.

    Args:
        names: Models as users name them, by label; see `label_models`.
        sets: Checked evaluation sets.
        metrics: Names of metrics.
        files: Where the results will go.
        overwrite: See `EvaluationFiles.check`.

    Returns:
        The results, on the leader; None on the other ranks.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: Models are of different scales, a metric is unknown, none can be computed, or a file cannot be
            written.
        RankLostError: Another process died or hangs.
    """
    files.check([*model_files(names.values()), *set_files(sets)], overwrite=overwrite)
    evaluation = open_evaluation(names, sets, metrics)
    report = evaluation.report
    if files.figure is not None:
        check_figure(files.figure, report.metrics)

    def keep(_: str, evaluated: list[Evaluated]) -> None:
        if files.picture is not None:
            report.pictured.append(evaluated)

    evaluation.measure(keep)
    return report if evaluation.backend.is_leader else None

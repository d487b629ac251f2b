"""Evaluates models that a user names, and writes what was asked for: the JSON document, a table, a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.evaluation import EvaluationPair, passed_over_in_sets, read_pair, set_files, set_images
from pipeline.data.layouts import SetImage
from pipeline.inference.device import best_device
from pipeline.inference.evaluate import Evaluated, measure_set
from pipeline.inference.evaluation_report import EvaluatedModel, EvaluationReport, is_evaluation, is_image_table
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.inference.pictures import OURS, before_and_after, is_picture_of, write_png
from pipeline.metrics.choice import choose_metrics
from pipeline.progress import Progress, say
from shards.errors import InputError
from shards.format.files import check_writable, sha256_of, write_atomically
from shards.format.outputs import check_output_files
from shards.format.storage import parse_local_path

_JOB = "evaluate"


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results go.

    Attributes:
        document: The JSON document.
        table: CSV of one line per model and image; None for none.
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
        if self.picture is not None and report.pictured:
            labels = OURS if len(report.models) == 1 else [model.label for model in report.models]
            write_png(self.picture, before_and_after(report.pictured, labels), job=_JOB)
            say(f"picture: {self.picture}")


def evaluate_models(
    names: Mapping[str, str], sets: Sequence[Path], metrics: Sequence[str], files: EvaluationFiles, *, overwrite: bool
) -> EvaluationReport:
    """Evaluate models on sets, once everything that was asked for is known to be possible; writes nothing.

    Each image is read once, however many models there are.

    Args:
        names: Models as users name them, by label; see `label_models`.
        sets: Checked evaluation sets.
        metrics: Names of metrics.
        files: Where the results will go.
        overwrite: See `EvaluationFiles.check`.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: Models are of different scales, a metric is unknown, none can be computed, or a file cannot be
            written.
    """
    chosen, not_computed = choose_metrics(metrics)
    if others := passed_over_in_sets(sets):
        say(others)
    files.check([*map(parse_local_path, names.values()), *set_files(sets)], overwrite=overwrite)
    models = [open_model(name, unfinished=True) for name in names.values()]
    scale = _common_scale(names, models)
    reported = [
        EvaluatedModel(name, label, sha256_of(model.weights))
        for (label, name), model in zip(names.items(), models, strict=True)
    ]
    report = EvaluationReport(reported, scale, chosen, not_computed)
    for model in models:
        say(f"generator: {model.weights}")
        model.generator.to(best_device())

    def keep(_: str, evaluated: list[Evaluated]) -> None:
        if files.picture is not None:
            report.pictured.append(evaluated)

    num_images = sum(len(set_images(folder, scale)) for folder in sets)
    with Progress("evaluating", num_images, "images") as progress:
        for folder in sets:
            results = measure_set(
                [model.generator for model in models],
                folder,
                scale,
                chosen,
                read=_read_usable,
                keep=keep,
                advance=progress.advance,
            )
            report.sets[folder.name] = results
            report.faults += [_fault_of(image, scale) for image in results.unusable]
    return report


def _common_scale(names: Mapping[str, str], models: Sequence[NamedModel]) -> int:
    scales = {name: model.scale for name, model in zip(names.values(), models, strict=True)}
    if len(set(scales.values())) > 1:
        listed = "\n  ".join(f"{name}: x{scale}" for name, scale in scales.items())
        raise InputError(f"models of different scales cannot be compared; evaluate each scale by itself:\n  {listed}")
    return models[0].scale


def _read_usable(image: SetImage, scale: int) -> EvaluationPair | None:
    try:
        return read_pair(image, scale)
    except InputError:
        return None


def _fault_of(image: SetImage, scale: int) -> str:
    """Read an image that could not be used again, and return why."""
    try:
        read_pair(image, scale)
    except InputError as error:
        return str(error)
    return f"{image.hr} could not be read, and now can be; evaluate again"

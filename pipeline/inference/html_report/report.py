"""Writes the report of one or several models: checks everything, runs the models, draws the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.data.evaluation import evaluation_files, passed_over
from pipeline.inference.device import best_device
from pipeline.inference.html_report.attention import Attention, draw_attention
from pipeline.inference.html_report.columns import Column, columns_of
from pipeline.inference.html_report.curves import curves_of
from pipeline.inference.html_report.details import where_most_different
from pipeline.inference.html_report.embedding import photo_uri, png_uri
from pipeline.inference.html_report.measure import Measured, measure_sets
from pipeline.inference.html_report.names import HR, short_names
from pipeline.inference.html_report.origin import origin_of
from pipeline.inference.html_report.output import check_report_file
from pipeline.inference.html_report.page import ComparedPhoto, Detail, Page, RunSection, render
from pipeline.inference.html_report.tables import means_of, table_of
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.metrics.choice import choose_metrics
from pipeline.progress import Progress, say
from pipeline.train.report import MetricsFile
from shards.errors import InputError
from shards.format.files import write_atomically

_FIRST_METRIC = "psnr_y"


@dataclass(frozen=True)
class ReportRequest:
    """What a report is about.

    Attributes:
        models: As users name them; the details show where the last and the first differ most.
        sets: Checked evaluation sets.
        metrics: Names of metrics; PSNR-Y is always the first.
        output: The HTML file.
        overwrite: Replace an existing file that is no report.
        max_photos: Photos shown, evenly spread; all are measured.
        command: That the user called, for the page.
    """

    models: Sequence[str]
    sets: Sequence[Path]
    metrics: Sequence[str]
    output: Path
    overwrite: bool
    max_photos: int
    command: str


@dataclass
class _Photos:
    """Collects photos as they are measured: the numbers of all, the pictures of those that are shown."""

    columns: Sequence[Column]
    values: dict[str, list[dict[str, dict[str, float]]]] = field(default_factory=dict)
    shown: list[ComparedPhoto] = field(default_factory=list)
    hr: dict[str, np.ndarray] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, photo: Measured, *, is_shown: bool) -> None:
        self.values.setdefault(photo.set_name, []).append(photo.values)
        if is_shown:
            self.shown.append(_compared(photo, self.columns))
            self.hr[f"{photo.set_name}/{photo.pair.name}"] = photo.pair.gt

    @property
    def num_measured(self) -> int:
        return sum(map(len, self.values.values()))


@dataclass(frozen=True)
class Written:
    """What became of a report: photos that could not be used, and how many there are."""

    faults: Sequence[str]
    num_photos: int


def write_report(request: ReportRequest) -> Written:
    """Measure the models and write the page.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: A metric is unknown, the models' scales differ, no photo can be used, or the file cannot be
            written.
    """
    metrics, not_computed = choose_metrics(tuple(dict.fromkeys((_FIRST_METRIC, *request.metrics))))
    check_report_file(request.output, request.models, request.sets, overwrite=request.overwrite)
    if others := passed_over(folder / "HR" for folder in request.sets):
        say(others)
    models = {name: open_model(model, unfinished=True) for name, model in short_names(request.models).items()}
    scale = _common_scale(models)
    columns = columns_of(metrics)
    photos = _measure(request, models, scale, columns)
    if not photos.num_measured:
        raise InputError("no photo of the sets can be used; no report was written:\n  " + "\n  ".join(photos.faults))
    page = Page(
        models=tuple(models),
        scale=scale,
        columns=columns,
        tables=[table_of(name, columns, means_of(values, columns)) for name, values in photos.values.items()],
        num_photos=photos.num_measured,
        not_computed=not_computed,
        faults=photos.faults,
        photos=photos.shown,
        runs=[_run_section(name, model.run, photos.hr) for name, model in models.items() if model.run is not None],
        origin=origin_of(request.command, models),
    )
    request.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(request.output, render(page))
    say(f"report: {request.output}")
    return Written(photos.faults, photos.num_measured + len(photos.faults))


def _common_scale(models: Mapping[str, NamedModel]) -> int:
    scales = {name: model.scale for name, model in models.items()}
    if len(set(scales.values())) > 1:
        listed = ", ".join(f"{name} x{scale}" for name, scale in scales.items())
        raise InputError(f"the models have different scales: {listed}; write one report per scale")
    return next(iter(scales.values()))


def _measure(
    request: ReportRequest, models: Mapping[str, NamedModel], scale: int, columns: Sequence[Column]
) -> _Photos:
    for model in models.values():
        say(f"generator: {model.weights}")
        model.generator.to(best_device())
    photos = _Photos(columns)
    total = sum(len(evaluation_files(folder)) for folder in request.sets)
    shown = {number * total // request.max_photos for number in range(request.max_photos)}
    with Progress("measuring", total, "photos") as progress:

        def skip(error: InputError) -> None:
            photos.faults.append(str(error))
            progress.advance(1)

        for photo in measure_sets(models, request.sets, scale, columns, skip):
            photos.add(photo, is_shown=progress.done in shown)
            progress.advance(1)
    return photos


def _compared(photo: Measured, columns: Sequence[Column]) -> ComparedPhoto:
    pictures = {**photo.pictures, HR: photo.pair.gt}
    height_px, width_px = photo.pair.gt.shape[:2]
    return ComparedPhoto(
        set_name=photo.set_name,
        name=photo.pair.name,
        width_px=width_px,
        height_px=height_px,
        uris={method: photo_uri(picture) for method, picture in pictures.items()},
        details=_details(pictures),
        table=table_of(photo.pair.name, columns, means_of([photo.values], columns)),
    )


def _details(pictures: Mapping[str, np.ndarray]) -> list[Detail]:
    """Return what is enlarged: where the last model and the first differ most; with one model, it and bicubic."""
    bicubic, *models, hr = pictures.values()
    first = models[0] if len(models) > 1 else bicubic
    height_px, width_px = hr.shape[:2]
    return [
        Detail(
            letter="AB"[number],
            side_px=window.side_px,
            left=100 * window.left_px / width_px,
            top=100 * window.top_px / height_px,
            width=100 * window.side_px / width_px,
            height=100 * window.side_px / height_px,
            uris={method: png_uri(window.cut(picture)) for method, picture in pictures.items()},
        )
        for number, window in enumerate(where_most_different(first, models[-1]))
    ]


def _run_section(name: str, run: RunFolder, photos: Mapping[str, np.ndarray]) -> RunSection:
    attention: Attention | None = None
    reason = ""
    try:
        attention = draw_attention(run, photos)
    except InputError as error:
        reason = str(error)
        say(f"{name}: the attention map is not drawn: {reason}")
    return RunSection(name, curves_of(MetricsFile(run.metrics)), attention, reason)

"""Writes the report of one or several models: checks everything, evaluates the models, draws the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.data.evaluation import set_images
from pipeline.inference.evaluate import Evaluated, SetResults
from pipeline.inference.evaluation import open_evaluation
from pipeline.inference.evaluation_report import EvaluationReport, MeansOfSet
from pipeline.inference.html_report.attention import draw_attention
from pipeline.inference.html_report.columns import HIGH_FREQUENCY_ENERGY, columns_of
from pipeline.inference.html_report.curves import curves_of
from pipeline.inference.html_report.details import evenly_spread, where_most_different
from pipeline.inference.html_report.embedding import photo_uri
from pipeline.inference.html_report.origin import origin_of
from pipeline.inference.html_report.page import ComparedPhoto, Detail, Page, RunSection, enlarged, render
from pipeline.inference.html_report.tables import Table, table_of
from pipeline.inference.model_names import BICUBIC, HR
from pipeline.metrics.bootstrap import mean_interval
from pipeline.metrics.spectrum import high_frequency_energy
from pipeline.progress import say
from pipeline.train.report import MetricsFile
from shards.errors import InputError
from shards.format.files import clean_stale_kind, write_atomically

_FIRST_METRIC = "psnr_y"


@dataclass(frozen=True)
class ReportRequest:
    """What a report is about.

    Attributes:
        models: As users name them, by label; the details show where the last and the first differ most.
        sets: Checked evaluation sets.
        metrics: Names of metrics; PSNR-Y is always the first.
        output: The HTML file, as `check_report_file` passed it.
        max_photos: Photos shown, evenly spread; all are measured.
        command: That the user called, for the page.
    """

    models: Mapping[str, str]
    sets: Sequence[Path]
    metrics: Sequence[str]
    output: Path
    max_photos: int
    command: str


@dataclass
class _Photos:
    """What a report adds to its evaluation: the high-frequency energy of all photos, and the pictures of some."""

    evaluation: EvaluationReport
    shown: set[tuple[str, str]]
    """Set and name of the photos that the page shows."""
    energies: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By set and method, photo by photo."""
    compared: list[ComparedPhoto] = field(default_factory=list)
    hr: dict[str, np.ndarray] = field(default_factory=dict)

    def keep(self, set_name: str, evaluated: Sequence[Evaluated]) -> None:
        pair, scale = evaluated[0].pair, self.evaluation.scale
        labels = [model.label for model in self.evaluation.models]
        results = {BICUBIC: evaluated[0].bicubic} | dict(zip(labels, (one.sr for one in evaluated), strict=True))
        energies = {method: high_frequency_energy(picture, pair.gt, scale) for method, picture in results.items()}
        for method, energy in energies.items():
            self.energies.setdefault((set_name, method), []).append(energy)
        if (set_name, pair.name) in self.shown:
            self.compared.append(self._compared(set_name, evaluated, results | {HR: pair.gt}, energies))
            self.hr[f"{set_name}/{pair.name}"] = pair.gt

    def _compared(
        self,
        set_name: str,
        evaluated: Sequence[Evaluated],
        pictures: Mapping[str, np.ndarray],
        energies: Mapping[str, float],
    ) -> ComparedPhoto:
        name, (height_px, width_px) = evaluated[0].pair.name, evaluated[0].pair.gt.shape[:2]
        metrics = self.evaluation.metrics
        values = [
            {metric.name: evaluated[0].metrics[f"bicubic_{metric.name}"] for metric in metrics},
            *({metric.name: one.metrics[metric.name] for metric in metrics} for one in evaluated),
        ]
        rows = [
            MeansOfSet(
                method,
                {key: mean_interval([value]) for key, value in {**row, HIGH_FREQUENCY_ENERGY.name: energy}.items()},
            )
            for row, (method, energy) in zip(values, energies.items(), strict=True)
        ]
        return ComparedPhoto(
            set_name=set_name,
            name=name,
            width_px=width_px,
            height_px=height_px,
            uris={method: photo_uri(picture) for method, picture in pictures.items()},
            details=_details(pictures),
            table=table_of(name, columns_of(metrics), rows),
        )

    def means(self, set_name: str) -> list[MeansOfSet]:
        """Return the means on a set, with those of the high-frequency energy."""
        name = HIGH_FREQUENCY_ENERGY.name
        return [
            MeansOfSet(row.label, row.intervals | {name: mean_interval(self.energies.get((set_name, row.label), []))})
            for row in self.evaluation.means(set_name)
        ]


@dataclass(frozen=True)
class Written:
    """What became of a report.

    Attributes:
        tables: Its numbers, a table for each set.
        faults: Photos that could not be used.
        num_photos: Number of photos, including those.
    """

    tables: Sequence[Table]
    faults: Sequence[str]
    num_photos: int


def write_report(request: ReportRequest) -> Written:
    """Evaluate the models and write the page.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: A metric is unknown, the models' scales differ, no photo can be used, or the file cannot be
            written.
    """
    output = request.output
    metrics = tuple(dict.fromkeys((_FIRST_METRIC, *request.metrics)))
    evaluation = open_evaluation(request.models, request.sets, metrics)
    report = evaluation.report
    photos = _Photos(report, _shown(request.sets, report.scale, request.max_photos))
    evaluation.measure(photos.keep)
    if len(report.faults) == report.num_images:
        raise InputError("no photo of the sets can be used; no report was written:\n  " + "\n  ".join(report.faults))
    columns = columns_of(report.metrics)
    opened = {one.label: model.run for one, model in zip(report.models, evaluation.models, strict=True)}
    page = Page(
        models=tuple(request.models),
        scale=report.scale,
        sets=list(report.sets),
        columns=columns,
        tables=[table_of(_title(name, results), columns, photos.means(name)) for name, results in report.sets.items()],
        num_photos=report.num_images - len(report.faults),
        not_computed=report.not_computed,
        faults=report.faults,
        photos=photos.compared,
        runs=[_run_section(label, run, photos.hr) for label, run in opened.items() if run is not None],
        without_run=[label for label, run in opened.items() if run is None],
        origin=origin_of(request.command, evaluation),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    clean_stale_kind(output.parent, output.name)
    write_atomically(output, render(page))
    say(f"report: {output}")
    return Written(page.tables, report.faults, report.num_images)


def _title(set_name: str, results: SetResults) -> str:
    count = len(results.images)
    return f"{set_name} ({count} photo{'' if count == 1 else 's'})"


def _shown(sets: Sequence[Path], scale: int, count: int) -> set[tuple[str, str]]:
    """Return set and name of some photos."""
    photos = [(folder.name, image.name) for folder in sets for image in set_images(folder, scale)]
    return set(evenly_spread(photos, count))


def _details(pictures: Mapping[str, np.ndarray]) -> list[Detail]:
    """Return what is enlarged: where the last model and the first differ most; with one model, it and bicubic."""
    bicubic, *models, _ = pictures.values()
    first = models[0] if len(models) > 1 else bicubic
    return enlarged(pictures, where_most_different(first, models[-1]))


def _run_section(label: str, run: RunFolder, photos: Mapping[str, np.ndarray]) -> RunSection:
    try:
        attention = draw_attention(run, photos)
    except InputError as error:
        attention = str(error)
    if isinstance(attention, str):
        say(f"{label}: attention is not shown: {attention}")
    return RunSection(label, curves_of(MetricsFile(run.metrics)), attention)

"""The curves of a run, from its metrics file: losses, the discriminator's accuracy, gradient shares, validations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.inference.html_report.charts import Chart, Drawing, Series, draw
from pipeline.metrics import METRICS
from pipeline.train.report import MetricsFile

MAX_POINTS = 150
_BICUBIC = "bicubic_"
CHANCE = 0.5
DISCRIMINATOR = "discriminator"
_DISCRIMINATOR_LOSSES = {"real": "real", "fake": "fake", "r1": "R1 penalty", "r2": "R2 penalty"}

Reports = Sequence[tuple[int, Mapping[str, float]]]


@dataclass(frozen=True)
class Curves:
    """The drawn charts of a run.

    Attributes:
        drawings: One per chart that the run has values for.
        notes: What a reader should know of them, and why some are missing.
    """

    drawings: Sequence[Drawing]
    notes: Sequence[str]


def curves_of(file: MetricsFile) -> Curves:
    """Return the curves of a run; none where it has no reports yet."""
    reports = file.reports()
    training = training_reports(reports)
    reports_per_point = max(1, math.ceil(len(training) / MAX_POINTS))
    charts = [*_training_charts(thinned(training, reports_per_point)), *_validation_charts(file)]
    notes = []
    if not reports:
        notes.append("No curves: the run has no reports yet.")
    if reports_per_point > 1:
        notes.append(f"Each point of a training curve is the mean of {reports_per_point} reports.")
    if training and not any(_has(report, DISCRIMINATOR) for report in training):
        notes.append("No curves of a discriminator: none was trained so far.")
    return Curves([draw(chart) for chart in charts if chart.series], notes)


def training_reports(reports: Reports) -> Reports:
    """Return the reports of training, without those of validations alone."""
    return [report for report in reports if _has(report, "generator/") or _has(report, DISCRIMINATOR)]


def validated_metrics(reports: Reports) -> list[str]:
    """Return the names of the metrics that validations measured."""
    return list(dict.fromkeys(name.rpartition("/")[2] for name in _validated(reports)))


def validation_chart(name: str, series: Sequence[Series]) -> Chart:
    """Return the chart of a metric, which this installation need not know."""
    known = {metric.name: metric for metric in METRICS}
    if name not in known:
        return Chart(f"Validation: {name}", name, series)
    metric = known[name]
    return Chart(f"Validation: {metric.label}, {metric.direction}", metric.unit or metric.label, series)


def thinned(reports: Reports, count: int) -> list[tuple[int, dict[str, float]]]:
    """Return the means of `count` reports each, at the position of the last."""
    groups = [reports[first : first + count] for first in range(0, len(reports), count)]
    return [(group[-1][0], _means([values for _, values in group])) for group in groups]


def _has(report: tuple[int, Mapping[str, float]], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in report[1])


def _training_charts(reports: Reports) -> list[Chart]:
    losses = _family(reports, "generator/", skip=("skipped_updates",))
    shares = _family(reports, "gradient_share/", factor=100)
    names = {name.partition("/")[0] for _, values in reports for name in values if name.startswith(DISCRIMINATOR)}
    return [
        Chart("Generator's losses", "loss, unweighted", _coloured(losses), may_be_logarithmic=True),
        *(chart for name in sorted(names) for chart in _discriminator_charts(reports, name)),
        # The share of an only term is always 100%.
        Chart(
            *("Generator's gradient by loss term", "share, %"),
            series=_coloured(shares) if len(shares) > 1 else (),
            limits=(0, 100),
        ),
    ]


def _discriminator_charts(reports: Reports, name: str) -> list[Chart]:
    losses = {label: _points(reports, f"{name}/{term}") for term, label in _DISCRIMINATOR_LOSSES.items()}
    accuracy = {side: _points(reports, f"{name}/accuracy_{side}") for side in ("real", "fake")}
    whose = f"{name.replace('_', ' ').capitalize()}'s"
    return [
        Chart(f"{whose} losses", "loss", _coloured(losses)),
        Chart(
            *(f"{whose} accuracy", "fraction correct"),
            series=_coloured(accuracy),
            limits=(0, 1),
            levels=[("chance", CHANCE)],
        ),
    ]


def _validated(reports: Reports) -> list[str]:
    """Return `SET/METRIC` of the validations; beside each is bicubic's, by which they are known."""
    names = (name for _, values in reports for name in values if f"/{_BICUBIC}" in name)
    return list(dict.fromkeys(name.replace(f"/{_BICUBIC}", "/") for name in names))


def _validation_charts(file: MetricsFile) -> list[Chart]:
    """Return a chart for each validation metric, with a line per set, and bicubic dashed in its colour."""
    found = _validated(file.reports())
    charts: dict[str, list[Series]] = {}
    for name in found:
        set_name, _, metric = name.rpartition("/")
        lines = charts.setdefault(metric, [])
        colour = len(lines) // 2
        own, bicubic = (list(file.validations(result).items()) for result in (name, f"{set_name}/{_BICUBIC}{metric}"))
        lines += [Series(set_name, own, colour), Series(f"{set_name}, bicubic", bicubic, colour, is_reference=True)]
    return [validation_chart(metric, [line for line in lines if line.points]) for metric, lines in charts.items()]


def _family(
    reports: Reports, prefix: str, *, skip: Sequence[str] = (), factor: float = 1
) -> dict[str, list[tuple[float, float]]]:
    """Return the points of all values whose names begin alike, by the rest of the name."""
    names = dict.fromkeys(name for _, values in reports for name in values if name.startswith(prefix))
    short = {name.removeprefix(prefix): name for name in names}
    return {label: _points(reports, name, factor) for label, name in short.items() if label not in skip}


def _points(reports: Reports, name: str, factor: float = 1) -> list[tuple[float, float]]:
    finite = [(images, values[name]) for images, values in reports if math.isfinite(values.get(name, math.nan))]
    return [(images, factor * value) for images, value in finite]


def _coloured(lines: Mapping[str, list[tuple[float, float]]]) -> list[Series]:
    return [Series(label, points, colour) for colour, (label, points) in enumerate(lines.items()) if points]


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        means[name] = sum(values) / len(values)
    return means

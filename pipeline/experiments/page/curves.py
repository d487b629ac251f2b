"""Curves of the arms: the mean over the runs of an arm, and how far its runs are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.experiments.page.looks import Look
from pipeline.experiments.page.nearness import MIN_ENLARGEMENT, largest_near
from pipeline.experiments.page.numbers import ordered_metrics
from pipeline.experiments.results import ComparisonResults
from pipeline.inference.html_report.charts import Chart, Series, draw
from pipeline.inference.html_report.curves import (
    CHANCE,
    DISCRIMINATOR,
    MAX_POINTS,
    Curves,
    Reports,
    thinned,
    training_reports,
    validated_metrics,
    validation_chart,
)
from pipeline.metrics import Metric
from pipeline.train.report import MetricsFile, validations_of

_ADVERSARIAL = "gradient_share/adversarial"

Arms = Sequence[tuple[Look, Sequence[Reports]]]
"""The reports of all runs of each arm."""

ValuesOf = Callable[[Reports], Mapping[int, float]]
"""Takes one number from the reports of a run: its values by images seen."""


def curves_of_arms(results: ComparisonResults, looks: Mapping[str, Look]) -> Curves:
    """Return the charts with a line per arm: validations, the primary metric's first, then training."""
    arms = [
        (looks[arm.name], [MetricsFile(RunFolder(run).metrics).reports() for run in arm.runs.values()])
        for arm in results.arms
    ]
    training = [(look, [training_reports(run) for run in runs]) for look, runs in arms]
    count = max((math.ceil(len(run) / MAX_POINTS) for _, runs in training for run in runs), default=1) or 1
    means = [(look, [thinned(run, count) for run in runs]) for look, runs in training]
    notes = [f"Each point of a training curve is the mean of {count} reports."] if count > 1 else []
    notes += (f"No curves of {look.label}: its runs have no reports." for look, runs in arms if not any(runs))
    wholes, baseline = _validation_charts(arms, ordered_metrics(results)), looks[results.baseline].label
    charts = [*(chart for whole in wholes for chart in _enlarged(whole, baseline)), *_training_charts(means)]
    return Curves([draw(chart) for chart in charts if chart.series], notes)


def _validation_charts(arms: Arms, metrics: Sequence[Metric]) -> list[Chart]:
    found = validated_metrics(_all_reports(arms))
    names = dict.fromkeys([*(metric.name for metric in metrics if metric.name in found), *found])
    return [validation_chart(name, _lines(arms, lambda run, name=name: validations_of(run, name))) for name in names]


def _enlarged(chart: Chart, baseline: str) -> list[Chart]:
    """Return a chart, and one of the lines around the baseline's alone where that shows them much larger."""
    last = {series.label: series.points[-1][1] for series in chart.series}
    if baseline not in last:
        return [chart]
    away = {label: abs(value - last[baseline]) for label, value in last.items()}
    limit = largest_near([size for label, size in away.items() if label != baseline])
    near = [series for series in chart.series if away[series.label] <= limit]
    if len(near) < 2 or _height(chart.series) < MIN_ENLARGEMENT * _height(near):
        return [chart]
    return [chart, replace(chart, title=f"{chart.title}; enlarged: around {baseline}", series=near)]


def _height(lines: Sequence[Series]) -> float:
    values = [value for line in lines for _, value in line.points]
    return max(values) - min(values)


def _training_charts(arms: Arms) -> list[Chart]:
    all_names = {name for _, values in _all_reports(arms) for name in values}
    discriminators = sorted({name.partition("/")[0] for name in all_names if name.startswith(DISCRIMINATOR)})
    accuracies = [
        Chart(
            *(f"{name.replace('_', ' ').capitalize()}'s accuracy, mean of real and fake", "fraction correct"),
            series=_lines(arms, lambda run, name=name: _accuracy(run, name)),
            limits=(0, 1),
            levels=[("chance", CHANCE)],
        )
        for name in discriminators
    ]
    shares = _lines(arms, _adversarial_share)
    limits = 0.0, max((value for line in shares for _, value in line.points), default=0.0)
    return [*accuracies, Chart("Adversarial share of the generator's gradient", "share, %", shares, limits=limits)]


def _all_reports(arms: Arms) -> Reports:
    return [report for _, runs in arms for run in runs for report in run]


def _lines(arms: Arms, values_of: ValuesOf) -> list[Series]:
    lines = [_line(look, [values_of(run) for run in runs]) for look, runs in arms]
    return [line for line in lines if line is not None]


def _line(look: Look, runs: Sequence[Mapping[int, float]]) -> Series | None:
    """Return the mean of the runs, at each position of those that have a value there; None without any."""
    positions = sorted({position for run in runs for position in run})
    if not positions:
        return None
    rows = [[run[position] for run in runs if position in run] for position in positions]
    return Series(
        label=look.label,
        points=[(position, sum(row) / len(row)) for position, row in zip(positions, rows, strict=True)],
        colour=look.colour,
        spread=[(min(row), max(row)) for row in rows] if any(len(row) > 1 for row in rows) else (),
        dash=look.dash,
        symbol=look.symbol,
    )


def _accuracy(reports: Reports, name: str) -> dict[int, float]:
    """Return the mean of a discriminator's two accuracies."""
    sides = [f"{name}/accuracy_{side}" for side in ("real", "fake")]
    both = [(images, values) for images, values in reports if all(side in values for side in sides)]
    return {images: sum(values[side] for side in sides) / len(sides) for images, values in both}


def _adversarial_share(reports: Reports) -> dict[int, float]:
    """Return the share of all adversarial terms together, in percent, where gradients were measured."""
    shares = [
        (images, [value for name, value in values.items() if name.startswith(_ADVERSARIAL)])
        for images, values in reports
    ]
    return {images: 100 * sum(terms) for images, terms in shares if terms}

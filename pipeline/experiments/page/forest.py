"""The forest plot: each arm's difference to the baseline with its interval, on one axis with the margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.experiments.page.looks import Look
from pipeline.experiments.page.nearness import largest_near
from pipeline.experiments.page.numbers import difference_text, differences_by
from pipeline.experiments.results import ComparisonResults
from pipeline.inference.html_report.charts import Axis, linear_axis, tick_labels
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Whisker:
    """A drawn interval, in percent of the width; an end beyond the axis is cut off and drawn as an arrow.

    Attributes:
        low: Its lower end.
        mean: Its mean; None where that is beyond the axis.
        high: Its upper end.
        is_cut_low: Whether the lower end is beyond the axis.
        is_cut_high: Whether the upper end is.
    """

    low: float
    mean: float | None
    high: float
    is_cut_low: bool
    is_cut_high: bool


@dataclass(frozen=True)
class ForestRow:
    """One arm; without a whisker where it has no difference."""

    look: Look
    whisker: Whisker | None
    difference: str
    verdict: str


@dataclass(frozen=True)
class Forest:
    """A forest plot, in percent of its width.

    Attributes:
        metric: Whose differences are shown.
        rows: One per arm, the baseline excluded.
        zero: Where no difference is.
        margin: Ends of the margin; None for a metric without.
        ticks: Of the axis.
        ends: What its left and its right end mean.
    """

    metric: Metric
    rows: Sequence[ForestRow]
    zero: float
    margin: tuple[float, float] | None
    ticks: Sequence[tuple[float, str]]
    ends: tuple[str, str]

    @property
    def is_cut(self) -> bool:
        """Whether an interval is beyond the axis."""
        return any(row.whisker and (row.whisker.is_cut_low or row.whisker.is_cut_high) for row in self.rows)


def forest_of(results: ComparisonResults, looks: Mapping[str, Look], metric: Metric) -> Forest | None:
    """Return the forest plot by a metric, with the margin by the primary one; None without a difference."""
    verdicts = differences_by(results, metric)
    known = [verdict.interval for verdict in verdicts.values() if verdict.interval is not None]
    if not known:
        return None
    margin = results.margin if metric.name == results.primary.name else 0.0
    axis = _axis(known, margin)

    def percent(value: float) -> float:
        return round(100 * min(1.0, max(0.0, axis.fraction(value))), 2)

    rows = [
        ForestRow(
            look=looks[name],
            whisker=_whisker(verdict.interval, axis) if verdict.interval else None,
            difference=difference_text(metric, verdict),
            verdict=verdict.text,
        )
        for name, verdict in verdicts.items()
    ]
    return Forest(
        metric=metric,
        rows=rows,
        zero=percent(0),
        margin=(percent(-margin), percent(margin)) if margin else None,
        ticks=list(zip(map(percent, axis.ticks), _signed(tick_labels(axis.ticks)), strict=True)),
        ends=("worse", "better") if metric.is_higher_better else ("better", "worse"),
    )


def _axis(intervals: Sequence[Interval], margin: float) -> Axis:
    """Return an axis with zero and the margin, around all intervals that are not far from the others."""
    limit = max(margin, largest_near([max(abs(one.low), abs(one.high)) for one in intervals], margin))
    low = max(-limit, min(one.low for one in intervals))
    high = min(limit, max(one.high for one in intervals))
    return linear_axis(min(low, -margin, 0.0), max(high, margin, 0.0))


def _whisker(interval: Interval, axis: Axis) -> Whisker:
    low, centre, high = (100 * axis.fraction(value) for value in (interval.low, interval.mean, interval.high))
    return Whisker(
        low=round(min(100.0, max(0.0, low)), 2),
        mean=round(centre, 2) if 0 <= centre <= 100 else None,
        high=round(min(100.0, max(0.0, high)), 2),
        is_cut_low=low < 0,
        is_cut_high=high > 100,
    )


def _signed(labels: Sequence[str]) -> list[str]:
    return [label if label.startswith("-") or not float(label) else f"+{label}" for label in labels]

"""The results of an evaluation as text: one table per set."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.inference.evaluation_report import EvaluationReport
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import CONFIDENCE, Interval, have_an_order
from pipeline.metrics.comparison import Comparison
from shards.format.rejects import describe_notes

_LEGEND = (
    f"± half of the {CONFIDENCE:.0%} bootstrap interval over images; * best of its column; "
    "↑ higher is better, ↓ lower is better"
)
_LEGEND_OF_DIFFERENCES = f"better, worse: than the first model, image by image, at {CONFIDENCE:.0%}"

Cell = tuple[str, str]
"""A number, and the mark behind it."""


def tables(report: EvaluationReport) -> str:
    """Return a table per set, what was lost or assumed of images, and what was not computed.

    A table has a row for bicubic upscaling, one per model, and one for each later model's difference to the first; a
    column per metric.
    """
    missing = [f"{name}: not computed: needs {what}" for name, what in report.not_computed.items()]
    legend = [_LEGEND] if len(report.models) == 1 else [_LEGEND, _LEGEND_OF_DIFFERENCES]
    notes = describe_notes(report.notes, "image(s)")
    return "\n".join([*(f"{_table(report, name)}\n" for name in report.sets), *legend, *notes, *missing])


def _table(report: EvaluationReport, set_name: str) -> str:
    means, num_images = report.means(set_name), len(report.sets[set_name].images)
    first, *later = report.models
    labels = [
        f"{set_name} ({num_images} image{'s' if num_images != 1 else ''})",
        *(row.label for row in means),
        *(f"{model.label} - {first.label}" for model in later),
    ]
    differences = [report.comparisons(set_name, at) for at in range(1, len(report.models))]
    columns = [
        [
            _header(metric),
            *_cells(metric, [row.intervals[metric.name] for row in means]),
            *(_difference(row[index]) for row in differences),
        ]
        for index, metric in enumerate(report.metrics)
    ]
    return "\n".join(map(_joined, zip(_padded(labels), *map(_aligned, columns), strict=True)))


def _header(metric: Metric) -> Cell:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.label}{unit} {'↑' if metric.is_higher_better else '↓'}", ""


def _cells(metric: Metric, intervals: Sequence[Interval | None]) -> list[Cell]:
    means = [interval.mean for interval in intervals if interval is not None]
    best = (max if metric.is_higher_better else min)(means, default=None) if have_an_order(intervals) else None
    return [
        ("none", "") if interval is None else (_number(interval, f".{metric.decimals}f"), "*" * (interval.mean == best))
        for interval in intervals
    ]


def _difference(comparison: Comparison) -> Cell:
    if comparison.interval is None:
        return "none", ""
    mark = "" if comparison.verdict == "not proven" else comparison.verdict
    return _number(comparison.interval, f"+.{comparison.metric.decimals + 1}f"), mark


def _number(interval: Interval, form: str) -> str:
    # Of a single image nothing is known of the spread.
    half = format((interval.high - interval.low) / 2, form.lstrip("+"))
    return f"{interval.mean:{form}} ±{half}" if interval.num_images > 1 else f"{interval.mean:{form}}"


def _aligned(column: Sequence[Cell]) -> list[str]:
    width = max(len(number) for number, _ in column)
    return _padded([f"{number:>{width}} {mark}" for number, mark in column])


def _padded(texts: Sequence[str]) -> list[str]:
    width = max(map(len, texts))
    return [text.ljust(width) for text in texts]


def _joined(cells: Sequence[str]) -> str:
    return "  ".join(cells).rstrip()

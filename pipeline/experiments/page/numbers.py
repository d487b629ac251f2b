"""The tables of a comparison, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.experiments.page.looks import Look
from pipeline.experiments.results import ArmResults, ComparisonResults, Verdict
from pipeline.inference.model_names import BICUBIC
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.order import mean

_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_FLOPS = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True)
class Number:
    """One metric of an arm, over seeds and images.

    Attributes:
        mean: The number.
        interval: Its ends; empty where nothing is known of them.
        difference: To the baseline; empty for the baseline.
        difference_interval: Its ends.
        verdict: On the difference.
        is_best: Whether it is proven best of all arms.
    """

    mean: str
    interval: str = ""
    difference: str = ""
    difference_interval: str = ""
    verdict: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Amount:
    """What an arm costs, and how many times what the baseline costs; empty where both are alike."""

    text: str
    ratio: str


@dataclass(frozen=True)
class Row:
    """An arm in the table, or bicubic upscaling, which has no look and was not trained."""

    look: Look | None
    label: str
    numbers: Sequence[Number]
    parameters: Amount | None = None
    flops: Amount | None = None


@dataclass(frozen=True)
class SeedRow:
    """The means of one run over the images, or the range of all runs of an arm."""

    seed: str
    means: Sequence[str]


def ordered_metrics(results: ComparisonResults) -> list[Metric]:
    """Return the metrics, the primary one first."""
    return [results.primary, *(metric for metric in results.metrics if metric.name != results.primary.name)]


def table_rows(results: ComparisonResults, looks: Mapping[str, Look]) -> list[Row]:
    """Return bicubic and the arms, in the order of the experiment."""
    metrics = ordered_metrics(results)
    best = {metric.name: proven_best(metric, differences_by(results, metric), results.baseline) for metric in metrics}
    baseline = next(arm for arm in results.arms if arm.name == results.baseline)
    bicubic = [plain(metric, mean(results.bicubic.get(metric.name, ()))) for metric in metrics]
    rows = [Row(None, BICUBIC, [Number(value) for value in bicubic])]
    for arm in results.arms:
        rows.append(
            Row(
                look=looks[arm.name],
                label=looks[arm.name].label,
                numbers=[_number(results, arm, metric, best[metric.name] == arm.name) for metric in metrics],
                parameters=_amount(short_count(arm.num_parameters), arm.num_parameters, baseline.num_parameters),
                flops=_amount(short_flops(arm.flops), arm.flops, baseline.flops),
            )
        )
    return rows


def seed_rows(results: ComparisonResults, looks: Mapping[str, Look]) -> dict[str, list[SeedRow]]:
    """Return the means of every run, by the label of its arm."""
    metrics = ordered_metrics(results)
    return {
        looks[arm.name].label: [
            SeedRow(str(seed), [_mean_of_seed(arm, metric, at) for metric in metrics])
            for at, seed in enumerate(results.seeds)
        ]
        for arm in results.arms
    }


def differences_by(results: ComparisonResults, metric: Metric) -> dict[str, Verdict]:
    """Return the verdicts on all arms that have one by a metric, in the order of the experiment."""
    found = {arm.name: results.differences.get(arm.name, {}).get(metric.name) for arm in results.arms}
    return {name: verdict for name, verdict in found.items() if verdict is not None and name != results.baseline}


def proven_best(metric: Metric, differences: Mapping[str, Verdict], baseline: str) -> str | None:
    """Return the arm that is proven best; None where none is.

    It is the arm whose verdict is "better" and whose interval overlaps no other arm's: all differences are to one
    baseline, and where their intervals are apart, so is zero from the interval of the difference between both. The
    baseline is the best where every verdict is "worse".
    """
    known = {name: verdict for name, verdict in differences.items() if verdict.interval is not None}
    if known and all(verdict.text.startswith("worse") for verdict in known.values()):
        return baseline
    sign = 1.0 if metric.is_higher_better else -1.0
    ends = {
        name: sorted((sign * one.low, sign * one.high)) for name, verdict in known.items() if (one := verdict.interval)
    }
    if not ends:
        return None
    first, *others = sorted(ends, key=lambda name: ends[name][0], reverse=True)
    is_apart = all(ends[first][0] > ends[other][1] for other in others)
    return first if is_apart and known[first].text.startswith("better") else None


def plain(metric: Metric, value: float | None) -> str:
    """A value without its unit, which the head of a column has; `none` where there is none."""
    return "none" if value is None or not math.isfinite(value) else f"{value:.{metric.decimals}f}"


def signed(metric: Metric, value: float) -> str:
    """A difference."""
    return f"{value:+.{metric.decimals}f}"


def ends_of(metric: Metric, interval: Interval, *, is_difference: bool) -> str:
    """The ends of an interval in words; empty where it has no width, since nothing is known of it."""
    if interval.low == interval.high:
        return ""
    shown = [signed(metric, end) if is_difference else plain(metric, end) for end in (interval.low, interval.high)]
    return " to ".join(shown)


def difference_text(metric: Metric, verdict: Verdict) -> str:
    """The difference with its interval; empty where there is none."""
    if verdict.interval is None:
        return ""
    ends = ends_of(metric, verdict.interval, is_difference=True)
    return signed(metric, verdict.interval.mean) + (f" ({ends})" if ends else "")


def short_count(count: int) -> str:
    """A number of parameters: `4.3M`."""
    for size, unit in _COUNTS:
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def short_flops(flops: float) -> str:
    """A number of operations: `4.3 PFLOP`."""
    if not math.isfinite(flops):
        return "unknown"
    for size, unit in _FLOPS:
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops:.3g} FLOP"


def _number(results: ComparisonResults, arm: ArmResults, metric: Metric, is_best: bool) -> Number:
    interval = results.intervals.get(arm.name, {}).get(metric.name)
    verdict = differences_by(results, metric).get(arm.name)
    difference = verdict.interval if verdict else None
    return Number(
        mean=plain(metric, interval.mean if interval else None),
        interval=ends_of(metric, interval, is_difference=False) if interval else "",
        difference=signed(metric, difference.mean) if difference else "",
        difference_interval=ends_of(metric, difference, is_difference=True) if difference else "",
        verdict=verdict.text if verdict else "",
        is_best=is_best,
    )


def _amount(text: str, value: float, baseline: float) -> Amount:
    is_known = math.isfinite(value) and math.isfinite(baseline) and value and baseline
    return Amount(text, f"{value / baseline:.3g}x" if is_known and value != baseline else "")


def _mean_of_seed(arm: ArmResults, metric: Metric, seed: int) -> str:
    values = arm.values.get(metric.name)
    if values is None:
        return "none"
    row = values[seed]
    finite = sum(map(math.isfinite, row))
    text = plain(metric, mean(row))
    return text if finite in (0, len(row)) else f"{text} ({finite} of {len(row)} images)"

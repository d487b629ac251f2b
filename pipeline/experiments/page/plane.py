"""The plane of perception and distortion: a point per arm and seed, and the way from each arm's start to its weights.

References:
    Blau and Michaeli 2018, The perception-distortion tradeoff, arXiv:1711.06077.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.experiments.page.looks import Look
from pipeline.experiments.page.nearness import MIN_ENLARGEMENT, largest_near
from pipeline.experiments.page.numbers import differences_by, ordered_metrics, plain
from pipeline.experiments.results import ArmResults, ComparisonResults
from pipeline.inference.html_report.charts import Axis, linear_axis, tick_labels
from pipeline.inference.model_names import BICUBIC
from pipeline.metrics import Metric
from pipeline.metrics.order import mean

WIDTH, HEIGHT = 560, 420
LEFT, RIGHT, TOP, BOTTOM = 66, 26, 34, 54
_MAX_STRETCH = 1.5  # an axis that bicubic would make longer than that is drawn without it

Point = tuple[float, float]
KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class Dot:
    """A drawn point and its hover text."""

    x: float
    y: float
    text: str

    @property
    def is_inside(self) -> bool:
        """Whether it is between the axes' ends."""
        return LEFT <= self.x <= WIDTH - RIGHT and TOP <= self.y <= HEIGHT - BOTTOM


@dataclass(frozen=True)
class PlaneArm:
    """An arm in the coordinates of the drawing.

    Attributes:
        look: Of the arm.
        mean: Over seeds and images.
        bars: Path of the intervals of its differences to the baseline, around its mean; empty for the baseline.
        seeds: The mean over images of each seed.
        route: Path through the interpolated generators; empty where there are none.
        stops: The interpolated generators.
    """

    look: Look
    mean: Dot
    bars: str
    seeds: Sequence[Dot]
    route: str
    stops: Sequence[Dot]


@dataclass(frozen=True)
class Plane:
    """A figure.

    Attributes:
        title: Above it.
        x_label: What its horizontal axis is.
        y_label: What its vertical axis is.
        x_ticks: Positions with their labels.
        y_ticks: Likewise.
        arms: Those with a value on both axes.
        bicubic: Where bicubic upscaling is; None where it has no values or is far from everything else.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    arms: Sequence[PlaneArm]
    bicubic: Dot | None


@dataclass(frozen=True)
class Planes:
    """The figures.

    Attributes:
        whole: Everything.
        near: Enlarged: the arms around the baseline, where others are far away; None where it would show no more.
        notes: What is missing.
    """

    whole: Plane
    near: Plane | None
    notes: Sequence[str]

    @property
    def has_routes(self) -> bool:
        """Whether interpolated generators are shown."""
        return any(arm.route for arm in self.whole.arms)


@dataclass(frozen=True)
class _Place:
    """An arm in the units of the metrics."""

    arm: ArmResults
    mean: Point
    bars: tuple[Point, Point] | None
    """Ends of the horizontal and of the vertical bar."""
    seeds: Mapping[int, Point]
    route: Mapping[float, Point]

    @property
    def ends(self) -> list[Point]:
        """The mean and what is around it, without the route."""
        points = [self.mean, *self.seeds.values()]
        if self.bars:
            (left, right), (low, high) = self.bars
            points += [(left, low), (right, high)]
        return points


@dataclass(frozen=True)
class _Canvas:
    """Turns values into coordinates and texts."""

    metrics: tuple[Metric, Metric]
    horizontal: Axis
    vertical: Axis

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * self.horizontal.fraction(value), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * self.vertical.fraction(value), 1)

    def dot(self, point: Point, what: str) -> Dot:
        numbers = (f"{metric.label} {plain(metric, value)}" for metric, value in zip(self.metrics, point, strict=True))
        return Dot(self.x(point[0]), self.y(point[1]), "\n".join([what, *numbers]))


def planes_of(results: ComparisonResults, looks: Mapping[str, Look]) -> Planes | str:
    """Return the figures by the first metric of each kind, or why there are none."""
    kinds = {metric.kind: metric for metric in reversed(ordered_metrics(results))}
    if missing := [kind for kind in ("distortion", "perceptual") if kind not in kinds]:
        return f"the experiment has no {missing[0]} metric"
    metrics = kinds["distortion"], kinds["perceptual"]
    places = [place for arm in results.arms if (place := _place(results, arm, metrics)) is not None]
    if not places:
        return f"no arm has both {metrics[0].label} and {metrics[1].label}"
    points = [point for place in places for point in (*place.ends, *place.route.values())]
    bicubic = _point(metrics, {name: mean(values) for name, values in results.bicubic.items()})
    notes = [
        f"Without {look.label}, which lacks a value." for name, look in looks.items() if name not in _names(places)
    ]
    if bicubic is not None and _stretch(points, [*points, bicubic]) > _MAX_STRETCH:
        where = (f"{metric.label} {plain(metric, value)}" for metric, value in zip(metrics, bicubic, strict=True))
        notes.append(f"Bicubic upscaling is beyond the axes, at {' and '.join(where)}.")
        bicubic = None
    canvas = _canvas(metrics, [*points, *([bicubic] if bicubic else [])])
    whole = _plane("All arms", places, looks, canvas)
    if bicubic is not None:
        whole = replace(whole, bicubic=canvas.dot(bicubic, BICUBIC))
    return Planes(whole, _enlarged(results.baseline, places, looks, metrics, points), notes)


def _enlarged(
    baseline: str,
    places: Sequence[_Place],
    looks: Mapping[str, Look],
    metrics: tuple[Metric, Metric],
    points: Sequence[Point],
) -> Plane | None:
    """Return the arms around the baseline, if that shows them much larger."""
    centre = next((place.mean for place in places if place.arm.name == baseline), places[0].mean)
    near = list(places)
    for axis, origin in enumerate(centre):
        limit = largest_near([abs(place.mean[axis] - origin) for place in places if place.arm.name != baseline])
        near = [place for place in near if abs(place.mean[axis] - origin) <= limit]
    shown = [point for place in near for point in place.ends]
    if len(near) < 2 or _stretch(shown, points) < MIN_ENLARGEMENT:
        return None
    return _plane(f"Enlarged: around {looks[baseline].label}", near, looks, _canvas(metrics, shown))


def _plane(title: str, places: Sequence[_Place], looks: Mapping[str, Look], canvas: _Canvas) -> Plane:
    return Plane(
        title=title,
        x_label=_axis_label(canvas.metrics[0], "better →", "← better"),
        y_label=_axis_label(canvas.metrics[1], "better ↑", "better ↓"),
        x_ticks=[(canvas.x(tick), label) for tick, label in _ticks(canvas.horizontal)],
        y_ticks=[(canvas.y(tick), label) for tick, label in _ticks(canvas.vertical)],
        arms=[_drawn(place, looks[place.arm.name], canvas) for place in places],
        bicubic=None,
    )


def _axis_label(metric: Metric, if_higher: str, if_lower: str) -> str:
    title = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    return f"{title}: {if_higher if metric.is_higher_better else if_lower}"


def _names(places: Sequence[_Place]) -> set[str]:
    return {place.arm.name for place in places}


def _point(metrics: tuple[Metric, Metric], values: Mapping[str, float | None]) -> Point | None:
    x, y = (values.get(metric.name) for metric in metrics)
    return None if x is None or y is None else (x, y)


def _place(results: ComparisonResults, arm: ArmResults, metrics: tuple[Metric, Metric]) -> _Place | None:
    intervals = results.intervals.get(arm.name, {})
    centre = _point(metrics, {name: interval.mean for name, interval in intervals.items() if interval})
    if centre is None:
        return None
    seeds = {
        seed: _point(metrics, {name: mean(values[at]) for name, values in arm.values.items()})
        for at, seed in enumerate(results.seeds)
    }
    route = {
        share: _point(metrics, {name: mean(values) for name, values in by_metric.items()})
        for share, by_metric in sorted(arm.interpolated.items())
    }
    return _Place(arm, centre, _bars(results, arm, metrics, centre), _known(seeds), _known(route))


def _known(points: Mapping[KeyT, Point | None]) -> dict[KeyT, Point]:
    return {key: point for key, point in points.items() if point is not None}


def _bars(
    results: ComparisonResults, arm: ArmResults, metrics: tuple[Metric, Metric], centre: Point
) -> tuple[Point, Point] | None:
    """Return the intervals of the differences to the baseline, moved to the arm's mean."""
    bars = []
    for metric, value in zip(metrics, centre, strict=True):
        verdict = differences_by(results, metric).get(arm.name)
        if verdict is None or verdict.interval is None:
            return None
        interval = verdict.interval
        bars.append((value + interval.low - interval.mean, value + interval.high - interval.mean))
    return bars[0], bars[1]


def _stretch(points: Sequence[Point], more: Sequence[Point]) -> float:
    """Return how many times longer an axis has to be for more points, the one that grows more."""
    lengths = [[max(along) - min(along) for along in zip(*some, strict=True)] for some in (points, more)]
    return max(long / short if short else (math.inf if long else 1.0) for short, long in zip(*lengths, strict=True))


def _canvas(metrics: tuple[Metric, Metric], points: Sequence[Point]) -> _Canvas:
    horizontal, vertical = (linear_axis(min(along), max(along)) for along in zip(*points, strict=True))
    return _Canvas(metrics, horizontal, vertical)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    return list(zip(axis.ticks, tick_labels(axis.ticks), strict=True))


def _drawn(place: _Place, look: Look, canvas: _Canvas) -> PlaneArm:
    x, y = place.mean
    bars = ""
    if place.bars:
        (left, right), (low, high) = place.bars
        bars = f"M{canvas.x(left)} {canvas.y(y)}H{canvas.x(right)}M{canvas.x(x)} {canvas.y(low)}V{canvas.y(high)}"
    stops = [canvas.dot(point, f"{look.label}, {share:.0%} of its weights") for share, point in place.route.items()]
    return PlaneArm(
        look=look,
        mean=canvas.dot(place.mean, f"{look.label}, mean"),
        bars=bars,
        seeds=[canvas.dot(point, f"{look.label}, seed {seed}") for seed, point in place.seeds.items()],
        route="M" + "L".join(f"{stop.x} {stop.y}" for stop in stops) if len(stops) > 1 else "",
        stops=stops,
    )

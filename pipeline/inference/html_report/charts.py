"""Line charts over images seen, as the coordinates that a page draws: scales, ticks, paths and hover texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 40
_NUM_TICKS = 4
_LOGARITHMIC_FROM = 10  # a smaller ratio of largest to smallest value is read from a linear axis
_MAX_DOTS = 30
_MAX_SYMBOLS = 6

NUM_COLOURS, GRAY = 8, 5
"""Colours of the style, and the number of the gray one."""

SYMBOLS = (
    "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1 -4 0Z",
    "M-3.6 -3.6H3.6V3.6H-3.6Z",
    "M0 -4.6L4.4 3.4H-4.4Z",
    "M0 -5L5 0L0 5L-5 0Z",
    "M0 4.6L4.4 -3.4H-4.4Z",
    "M-1.5 -4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M0 -5L1.4 -1.6L5 -1.5L2.2 0.8L3.1 4.3L0 2.3L-3.1 4.3L-2.2 0.8L-5 -1.5L-1.4 -1.6Z",
    "M-4.4 -3.2L-3.2 -4.4L0 -1.2L3.2 -4.4L4.4 -3.2L1.2 0L4.4 3.2L3.2 4.4L0 1.2L-3.2 4.4L-4.4 3.2L-1.2 0Z",
)
"""Paths of an SVG around its origin, which can be told apart without colours."""


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        label: In the legend.
        points: Images seen, and the value there.
        colour: Number of its colour.
        is_reference: Drawn dashed: what the others are compared with.
        spread: The lowest and the highest value at each point, drawn as an area; empty for none.
        dash: Number of its pattern, 0 for an unbroken line.
        symbol: Number of the symbol that marks it, for lines that colours cannot tell apart; None for dots.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    is_reference: bool = False
    spread: Sequence[tuple[float, float]] = ()
    dash: int = 0
    symbol: int | None = None


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: Above it.
        unit: Of the vertical axis.
        series: Its lines; each has a point.
        limits: Ends of the vertical axis; None to fit the values.
        may_be_logarithmic: Use a logarithmic axis where values are positive and far apart.
        levels: Horizontal lines, each a label and a value, such as chance.
    """

    title: str
    unit: str
    series: Sequence[Series]
    limits: tuple[float, float] | None = None
    may_be_logarithmic: bool = False
    levels: Sequence[tuple[str, float]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Axis:
    """A scale: its ends and its ticks."""

    low: float
    high: float
    ticks: Sequence[float]
    is_logarithmic: bool = False

    def fraction(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1."""
        low, high, value = (math.log10(each) if self.is_logarithmic else each for each in (self.low, self.high, value))
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Line:
    """A drawn series.

    Attributes:
        series: What it shows.
        last: Its last value, for the legend.
        path: Of an SVG.
        area: Path around its spread; empty for none.
        dots: Where its points are few.
        symbols: Where its symbol stands, the last point included.
    """

    series: Series
    last: str
    path: str
    area: str
    dots: Sequence[tuple[float, float]]
    symbols: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Band:
    """The part of the chart that is nearest to a position, with what all lines are there."""

    left: float
    width: float
    middle: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """A chart in the coordinates of its SVG."""

    chart: Chart
    is_logarithmic: bool
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    levels: Sequence[float]
    lines: Sequence[Line]
    bands: Sequence[Band]


def draw(chart: Chart) -> Drawing:
    """Lay a chart out."""
    horizontal, vertical = _horizontal_axis(chart), _vertical_axis(chart)

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * horizontal.fraction(value), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * vertical.fraction(value), 1)

    lines = [
        _line(
            series,
            [(x(images), y(value)) for images, value in series.points],
            [(y(low), y(high)) for low, high in series.spread],
        )
        for series in chart.series
    ]
    positions = sorted({images for series in chart.series for images, _ in series.points})
    return Drawing(
        chart=chart,
        is_logarithmic=vertical.is_logarithmic,
        x_ticks=[(x(tick), short_count(tick)) for tick in horizontal.ticks],
        y_ticks=list(zip(map(y, vertical.ticks), tick_labels(vertical.ticks), strict=True)),
        levels=[y(value) for _, value in chart.levels],
        lines=lines,
        bands=_bands(chart, positions, [x(position) for position in positions]),
    )


def linear_axis(low: float, high: float) -> Axis:
    """Return an axis around two values, whose ticks are 1, 2 or 5 times a power of ten apart."""
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    locator = MaxNLocator(_NUM_TICKS, steps=[1, 2, 5, 10])
    ticks = [float(f"{tick:.12g}") for tick in locator.tick_values(low, high)]
    return Axis(ticks[0], ticks[-1], ticks)


def logarithmic_axis(low: float, high: float) -> Axis:
    """Return an axis around two positive values, whose ticks are powers of ten."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    step = max(1, round((last - first) / _NUM_TICKS))
    ticks = [10.0**power for power in range(first, last + 1, step)]
    return Axis(10.0**first, 10.0**last, ticks, is_logarithmic=True)


def short_count(count: float) -> str:
    """Return a number of images as an axis shows it: `800`, `12k`, `1.5M`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return numbers with equally many decimals, as few as tell all."""
    shortest = [f"{tick:g}" for tick in ticks]
    if any("e" in label for label in shortest):
        return shortest
    decimals = max(len(label.partition(".")[2]) for label in shortest)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _horizontal_axis(chart: Chart) -> Axis:
    positions = [images for series in chart.series for images, _ in series.points]
    axis = linear_axis(min(0.0, *positions), max(positions))
    return Axis(axis.low, max(positions), [tick for tick in axis.ticks if tick <= max(positions)])


def _vertical_axis(chart: Chart) -> Axis:
    if chart.limits is not None:
        return linear_axis(*chart.limits)
    values = [value for series in chart.series for _, value in series.points]
    values += (end for series in chart.series for ends in series.spread for end in ends)
    low, high = min(values), max(values)
    if chart.may_be_logarithmic and low > 0 and high / low >= _LOGARITHMIC_FROM:
        return logarithmic_axis(low, high)
    return linear_axis(low, high)


def _line(series: Series, points: Sequence[tuple[float, float]], spread: Sequence[tuple[float, float]]) -> Line:
    has_symbol = series.symbol is not None
    step = math.ceil(len(points) / _MAX_SYMBOLS)
    return Line(
        series=series,
        last=f"{series.points[-1][1]:.4g}",
        path=_path(points),
        area=_area([x for x, _ in points], spread) if spread else "",
        dots=() if has_symbol or len(points) > _MAX_DOTS else points,
        symbols=points[::-1][::step] if has_symbol else (),
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _area(positions: Sequence[float], spread: Sequence[tuple[float, float]]) -> str:
    """Return the path along all upper ends and back along the lower ones."""
    lower, upper = ([*zip(positions, ends, strict=True)] for ends in zip(*spread, strict=True))
    return _path([*upper, *reversed(lower)]) + "Z"


def _bands(chart: Chart, positions: Sequence[float], middles: Sequence[float]) -> list[Band]:
    """Return a band around each position, from half-way to the one before it to half-way to the next."""
    borders = [
        LEFT,
        *(round((one + other) / 2, 1) for one, other in itertools.pairwise(middles)),
        WIDTH - RIGHT,
    ]
    at = [dict(series.points) for series in chart.series]
    bands = []
    for position, middle, (left, right) in zip(positions, middles, itertools.pairwise(borders), strict=True):
        values = [
            f"{series.label}: {points[position]:.4g}"
            for series, points in zip(chart.series, at, strict=True)
            if position in points
        ]
        bands.append(Band(left, round(right - left, 1), middle, "\n".join([f"{position:,.0f} images", *values])))
    return bands

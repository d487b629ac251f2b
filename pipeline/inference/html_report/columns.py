"""The columns of a report's table: metrics, and the high-frequency energy, each with its best value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.metrics import Metric


@dataclass(frozen=True)
class Column:
    """One number of every picture.

    Attributes:
        name: Identifies it.
        label: Heads the column, with the unit.
        better: Which of two values is better, in words.
        protocol: What exactly is computed.
        decimals: Shown.
        distance: How far a value is from the best there can be, or a number that orders values alike.
    """

    name: str
    label: str
    better: str
    protocol: str
    decimals: int
    distance: Callable[[float], float]

    def text(self, value: float | None) -> str:
        """The number as it is shown; `none` where there is no mean."""
        return "none" if value is None else f"{value:.{self.decimals}f}"


def column_of(metric: Metric) -> Column:
    """Return the column of a metric."""
    sign = -1.0 if metric.is_higher_better else 1.0
    return Column(
        name=metric.name,
        label=f"{metric.label}, {metric.unit}" if metric.unit else metric.label,
        better=metric.direction,
        protocol=metric.protocol,
        decimals=metric.decimals,
        distance=lambda value: sign * value,
    )


HIGH_FREQUENCY_ENERGY = Column(
    name="high_frequency_energy",
    label="high-frequency energy",
    better="HR = 1, nearest is best",
    protocol="BT.601 Y of the rounded 8-bit image, border = scale; energy above a quarter of Nyquist relative to HR's",
    decimals=3,
    distance=lambda value: abs(value - 1),
)


def columns_of(metrics: Sequence[Metric]) -> tuple[Column, ...]:
    """Return all columns of a report."""
    return (*map(column_of, metrics), HIGH_FREQUENCY_ENERGY)


def is_best(column: Column, value: float | None, all_values: Sequence[float | None]) -> bool:
    """Return whether no other value is better by what the table shows of it."""
    finite = [each for each in all_values if each is not None and math.isfinite(each)]
    if value is None or len(finite) < 2:
        return False
    return column.text(value) == column.text(min(finite, key=column.distance))

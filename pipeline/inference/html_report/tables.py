"""Tables of a report: a row per method, a column per number, the best of each column marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.inference.evaluation_report import MeansOfSet
from pipeline.inference.html_report.columns import Column, is_best


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, and whether it is the best of its column."""

    text: str
    is_best: bool


@dataclass(frozen=True)
class Table:
    """Rows of cells by method, under the columns of the report."""

    title: str
    columns: Sequence[Column]
    rows: dict[str, list[Cell]]


def table_of(title: str, columns: Sequence[Column], means: Sequence[MeansOfSet]) -> Table:
    """Return the table of some means, a row for each."""
    rows: dict[str, list[Cell]] = {row.label: [] for row in means}
    for column in columns:
        intervals = [row.intervals[column.name] for row in means]
        values = [None if interval is None else interval.mean for interval in intervals]
        for row, value in zip(means, values, strict=True):
            rows[row.label].append(Cell(column.text(value), is_best(column, value, values)))
    return Table(title, columns, rows)

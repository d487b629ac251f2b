"""Tables of a report: a row per method, a column per number, the best of each column marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.inference.html_report.columns import Column, is_best
from pipeline.metrics.order import mean


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


def table_of(title: str, columns: Sequence[Column], values: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Return the table of one value for each method and column."""
    rows: dict[str, list[Cell]] = {method: [] for method in values}
    for column in columns:
        of_column = [of_method[column.name] for of_method in values.values()]
        for method, value in zip(values, of_column, strict=True):
            rows[method].append(Cell(column.text(value), is_best(column, value, of_column)))
    return Table(title, columns, rows)


def means_of(
    photos: Sequence[Mapping[str, Mapping[str, float]]], columns: Sequence[Column]
) -> dict[str, dict[str, float | None]]:
    """Return each method's mean of each column over photos by the rule of `pipeline.metrics.order`."""
    methods = photos[0] if photos else {}
    return {
        method: {column.name: mean(photo[method][column.name] for photo in photos) for column in columns}
        for method in methods
    }

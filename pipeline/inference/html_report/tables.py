"""Tables of a report: a row per method, a column per number, the best of each column marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.inference.evaluation_report import MeansOfSet
from pipeline.inference.html_report.columns import Column, is_best
from pipeline.metrics.bootstrap import Interval, have_an_order


@dataclass(frozen=True)
class Cell:
    """A mean as it is shown.

    Attributes:
        text: The number.
        spread: Half of its interval; empty for a single photo.
        is_best: Of its column.
    """

    text: str
    spread: str
    is_best: bool


@dataclass(frozen=True)
class Table:
    """Rows of cells by method, under the columns of the report."""

    title: str
    columns: Sequence[Column]
    rows: dict[str, list[Cell]]

    @property
    def text(self) -> str:
        """The means for a terminal, the best of each column marked by a star."""
        columns = [
            [self.title, *self.rows],
            *(
                [column.label, *(f"{row[at].text}{'*' if row[at].is_best else ' '}" for row in self.rows.values())]
                for at, column in enumerate(self.columns)
            ),
        ]
        widths = [max(map(len, column)) for column in columns]
        lines = zip(*columns, strict=True)
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def table_of(title: str, columns: Sequence[Column], means: Sequence[MeansOfSet]) -> Table:
    """Return the table of some means, a row for each."""
    rows: dict[str, list[Cell]] = {row.label: [] for row in means}
    for column in columns:
        intervals = [row.intervals[column.name] for row in means]
        values = [None if interval is None else interval.mean for interval in intervals]
        ordered = values if have_an_order(intervals) else []
        for row, interval, value in zip(means, intervals, values, strict=True):
            cell = Cell(column.text(value), _spread(column, interval), is_best(column, value, ordered))
            rows[row.label].append(cell)
    return Table(title, columns, rows)


def _spread(column: Column, interval: Interval | None) -> str:
    if interval is None or interval.num_images < 2:  # of a single photo nothing is known of the spread
        return ""
    return f"±{column.text((interval.high - interval.low) / 2)}"

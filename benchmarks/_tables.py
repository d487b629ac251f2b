"""Tables of measurements: typed rows, their JSON files, their Markdown, and what got worse since an earlier run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Value = float | int | str | None
"""A cell; None where there is nothing to say."""
Better = Literal["", "lower", "higher"]
ARROWS: dict[Better, str] = {"": "", "lower": " ↓", "higher": " ↑"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Its name, with the unit.
        form: Format specification of its numbers, as `.2f`; empty for text.
        better: Which numbers are better; empty where neither are.
        is_label: Whether it is part of what identifies a row.
        is_compared: Whether its numbers hold on other machines of the kind, too (ratios within a run, memory, counts):
            a later run is compared with it.
        noise: Share of a number by which it may change where no spread was recorded.
        slack: What it may change by there in any case.
    """

    heading: str
    form: str = ""
    better: Better = ""
    is_label: bool = False
    is_compared: bool = False
    noise: float = 0.05
    slack: float = 0.0


def label(heading: str, form: str = "") -> Column:
    """Return a column that identifies a row."""
    return Column(heading, form, is_label=True)


def seconds(heading: str, form: str = ".2f") -> Column:
    """Return a column of times, which are those of one machine."""
    return Column(heading, form, "lower")


def ratio(heading: str, better: Better = "higher", form: str = ".2f") -> Column:
    """Return a column of ratios within one run."""
    return Column(heading, form, better, is_compared=True)


def mib(heading: str = "peak MiB") -> Column:
    """Return a column of a process's memory."""
    return Column(heading, ",.0f", "lower", is_compared=True, noise=0.1, slack=2.0)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cells: Heading to value.
        spread: Heading to the least and the most over the repeats.
        targets: Heading to the number that was aimed at; a number that reaches it is bold.
    """

    cells: Mapping[str, Value]
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)


def row_of(
    columns: Iterable[Column],
    *values: Value,
    spread: Mapping[str, tuple[float, float]] | None = None,
    targets: Mapping[str, float] | None = None,
) -> Row:
    """Return a row with a value for each column, in order."""
    cells = zip((column.heading for column in columns), values, strict=True)
    return Row({name: value for name, value in cells if value is not None}, spread or {}, targets or {})


@dataclass(frozen=True)
class Run:
    """The rows of one call of a benchmark, and where they come from.

    Attributes:
        command: As it was typed; several lines for several calls.
        device: Processor, threads, versions of libraries, and whether the machine was busy.
        date: Year, month and day.
        commit: Of the measured code.
        rows: In the order of the table.
        processor: Kind of processor, on which ratios may depend: an instruction set or a GPU. Empty: not recorded.
    """

    command: str
    device: str
    date: str
    commit: str
    rows: tuple[Row, ...]
    processor: str = ""


@dataclass(frozen=True)
class Table:
    """A table of docs, whose rows may come from several runs; the newest run is the first."""

    name: str
    columns: tuple[Column, ...]
    runs: tuple[Run, ...]

    def key(self, row: Row) -> tuple[Value, ...]:
        """Return what identifies a row."""
        return tuple(row.cells.get(column.heading) for column in self.columns if column.is_label)


def read_table(path: Path) -> Table:
    """Read a table's file, whose name is the table's."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    columns = tuple(Column(**column) for column in plain["columns"])
    runs = tuple(Run(**run | {"rows": tuple(map(_row, run["rows"]))}) for run in plain["runs"])
    return Table(path.stem, columns, runs)


def _row(plain: dict[str, Any]) -> Row:
    spread = {heading: (least, most) for heading, (least, most) in plain.get("spread", {}).items()}
    return Row(plain["cells"], spread, plain.get("targets", {}))


def write_table(folder: Path, table: Table) -> None:
    """Write `NAME.json` into a folder, one line per row, so that a diff shows what changed."""
    columns = ",\n".join(f"  {json.dumps(_without_defaults(column))}" for column in table.columns)
    runs = ",\n".join(map(_run_text, table.runs))
    text = f'{{\n "columns": [\n{columns}\n ],\n "runs": [\n{runs}\n ]\n}}\n'
    (folder / f"{table.name}.json").write_text(text, encoding="utf-8")


def _run_text(run: Run) -> str:
    origin = [name for name in ("command", "device", "processor", "date", "commit") if getattr(run, name)]
    lines = [f'   "{name}": {json.dumps(getattr(run, name))},' for name in origin]
    rows = ",\n".join(
        f"    {json.dumps({key: value for key, value in vars(row).items() if value})}" for row in run.rows
    )
    return "\n".join(["  {", *lines, f'   "rows": [\n{rows}\n   ]', "  }"])


def _without_defaults(column: Column) -> dict[str, Any]:
    values = vars(column)
    fields = dataclasses.fields(column)
    return {field.name: values[field.name] for field in fields if values[field.name] != field.default}


def merge(earlier: Table | None, new: Table) -> Table:
    """Return the new rows, and after them those earlier ones that were not measured anew, with their own origin.

    Rows of another kind of processor are kept; those of an unknown one are not.
    """
    if earlier is None:
        return new
    measured = {(processor, new.key(row)) for run in new.runs for row in run.rows for processor in ("", run.processor)}
    kept = [
        dataclasses.replace(run, rows=tuple(row for row in run.rows if (run.processor, new.key(row)) not in measured))
        for run in earlier.runs
    ]
    return dataclasses.replace(new, runs=(*new.runs, *(run for run in kept if run.rows)))


def list_worse(earlier: Table, new: Table) -> list[str]:
    """Describe each compared number that got worse by more than the spread of both, on one kind of processor."""
    before = {(run.processor, new.key(row)): row for run in earlier.runs for row in run.rows}
    pairs = [
        (old, row)
        for run in new.runs
        for row in run.rows
        if (old := before.get((run.processor, new.key(row)))) is not None
    ]
    worse = []
    for old, row in pairs:
        for column in new.columns:
            if column.is_compared and _is_worse(column, old, row):
                before_and_now = " and is ".join(f"{one.cells[column.heading]:.4g}" for one in (old, row))
                name = ", ".join(str(part) for part in new.key(row))
                worse.append(f"{new.name}: {name}: {column.heading} was {before_and_now}")
    return worse


def _is_worse(column: Column, old: Row, new: Row) -> bool:
    before, now = old.cells.get(column.heading), new.cells.get(column.heading)
    if not (isinstance(before, (int, float)) and isinstance(now, (int, float))):
        return False
    sign = 1 if column.better == "higher" else -1
    if sign * now >= sign * before:
        return False
    (least, most), (new_least, new_most) = _range(column, old), _range(column, new)
    return not (least <= now <= most or new_least <= before <= new_most)


def _range(column: Column, row: Row) -> tuple[float, float]:
    value = float(row.cells[column.heading] or 0)
    noise = max(abs(column.noise * value), column.slack)
    return row.spread.get(column.heading, (value - noise, value + noise))


def markdown(table: Table) -> str:
    """Return a table with the command and the origin of each run above its rows."""
    return "\n\n".join(_run_markdown(table.columns, run) for run in table.runs)


def _run_markdown(columns: Iterable[Column], run: Run) -> str:
    headings, cells = [], [[] for _ in run.rows]
    for column in columns:
        values = [_cell(column, row) for row in run.rows]
        if any(values):
            headings.append(column.heading + ARROWS[column.better])
            _append(cells, values)
        if not column.is_compared and any(column.heading in row.spread for row in run.rows):
            headings.append("min to max")
            _append(cells, [_spread(column, row) for row in run.rows])
    lines = [headings, ["---"] * len(headings), *cells]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"```\n{run.command}\n```\nDevice: {run.device}. Date: {run.date}. Commit: {run.commit}.\n\n{grid}"


def _append(cells: list[list[str]], values: list[str]) -> None:
    for line, value in zip(cells, values, strict=True):
        line.append(value)


def _cell(column: Column, row: Row) -> str:
    value, target = row.cells.get(column.heading), row.targets.get(column.heading)
    text = _number(column, value)
    if target is None or not isinstance(value, (int, float)):
        return text
    reached = value >= target if column.better == "higher" else value <= target
    return f"**{text}**" if reached else text


def _number(column: Column, value: Value) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else format(value, column.form)


def _spread(column: Column, row: Row) -> str:
    if column.heading not in row.spread:
        return ""
    least, most = row.spread[column.heading]
    return f"{_number(column, least)} to {_number(column, most)}"

"""Tables of benchmarks: documents show what the files hold, rows keep their origin, and what got worse is listed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from harness import ROOT, run_command

from benchmarks._document import documents, render
from benchmarks._suite import SUITE, Task
from benchmarks._tables import (
    Row,
    Run,
    Table,
    label,
    list_worse,
    markdown,
    merge,
    mib,
    ratio,
    read_table,
    row_of,
    seconds,
    write_table,
)

DOCS = ROOT / "docs"
COLUMNS = (label("side"), seconds("s"), ratio("speed-up"), mib())


def table_of(*rows: Row, date: str = "2026-11-27", processor: str = "") -> Table:
    return Table("toy", COLUMNS, (Run("python benchmarks/toy.py", "1 CPU core", date, "abc1234", rows, processor),))


@pytest.mark.parametrize("document", documents(DOCS), ids=lambda path: path.name)
def test_document_shows_what_the_files_hold(document: Path) -> None:
    text = document.read_text()
    assert text == render(text, DOCS / "benchmarks"), "run python -m benchmarks --render"


def test_every_table_is_shown_once() -> None:
    shown = [name for path in documents(DOCS) for name in path.read_text().split("<!-- table: ")[1:]]
    names = [name.partition(" ")[0] for name in shown]
    assert len(names) == len(set(names))
    assert {path.stem for path in (DOCS / "benchmarks").iterdir()} <= set(names)


def test_edited_number_is_not_what_the_files_hold() -> None:
    text = (DOCS / "benchmarks.md").read_text()
    begin = text.index("<!-- table: degradation -->")
    number = re.compile(r"(?<=\| )\d+\.\d+(?= \|)").search(text, begin)
    assert number
    edited = f"{text[: number.start()]}7{text[number.start() :]}"
    assert render(edited, DOCS / "benchmarks") == text


def test_table_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 tables begin and 1 end"):
        render("<!-- table: a -->\n<!-- table: b -->\n<!-- end -->\n", tmp_path)


def test_table_without_a_file_is_not_measured(tmp_path: Path) -> None:
    text = render("# Title\n<!-- table: a -->\nold\n<!-- end -->\nprose\n", tmp_path)
    assert text == "# Title\n<!-- table: a -->\nNot measured.\n<!-- end -->\nprose\n"


def test_files_keep_a_table_whole(tmp_path: Path) -> None:
    table = table_of(
        row_of(COLUMNS, "ours", 1.5, 2.0, None, spread={"s": (1.0, 2.0)}, targets={"speed-up": 1.5}),
        row_of(COLUMNS, "peer", 3.0, 1.0, 1024.0),
    )
    write_table(tmp_path, table)
    assert read_table(tmp_path / "toy.json") == table


def test_markdown_shows_origin_spread_and_reached_targets() -> None:
    table = table_of(
        row_of(COLUMNS, "peer", 3.0, 1.0, None),
        row_of(COLUMNS, "ours", 1.5, 2.0, None, spread={"s": (1.25, 2.0)}, targets={"speed-up": 2.0}),
        row_of(COLUMNS, "ours, slow", 2.0, 1.5, None, targets={"speed-up": 2.0}),
    )
    assert markdown(table).splitlines() == [
        "```",
        "python benchmarks/toy.py",
        "```",
        "Device: 1 CPU core. Date: 2026-11-27. Commit: abc1234.",
        "",
        "| side | s ↓ | min to max | speed-up ↑ |",
        "| --- | --- | --- | --- |",
        "| peer | 3.00 |  | 1.00 |",
        "| ours | 1.50 | 1.25 to 2.00 | **2.00** |",
        "| ours, slow | 2.00 |  | 1.50 |",
    ]


def test_rows_that_were_not_measured_keep_their_origin() -> None:
    earlier = table_of(row_of(COLUMNS, "ours", 1.0, 1.0, 1), row_of(COLUMNS, "peer", 2.0, 0.5, 2), date="2026-01-01")
    merged = merge(earlier, table_of(row_of(COLUMNS, "ours", 3.0, 1.0, 3)))
    assert [(run.date, [row.cells["s"] for row in run.rows]) for run in merged.runs] == [
        ("2026-11-27", [3.0]),
        ("2026-01-01", [2.0]),
    ]
    again = merge(merged, table_of(row_of(COLUMNS, "peer", 4.0, 1.0, 3), date="2026-12-01"))
    assert [run.date for run in again.runs] == ["2026-12-01", "2026-11-27"]


def test_kinds_of_processors_are_neither_compared_nor_replaced_by_each_other(tmp_path: Path) -> None:
    wide = table_of(row_of(COLUMNS, "ours", 1.0, 2.0, 1), processor="x86-64 AVX-512")
    narrow = table_of(row_of(COLUMNS, "ours", 1.0, 1.0, 1), processor="x86-64 AVX2")
    both = merge(wide, narrow)
    write_table(tmp_path, both)
    assert read_table(tmp_path / "toy.json") == both
    assert [run.processor for run in both.runs] == ["x86-64 AVX2", "x86-64 AVX-512"]
    assert list_worse(both, wide) == []
    later = table_of(row_of(COLUMNS, "ours", 1.0, 1.5, 1), processor="x86-64 AVX-512", date="2026-12-01")
    assert len(list_worse(both, later)) == 1
    assert [run.date for run in merge(both, later).runs] == ["2026-12-01", "2026-11-27"]


def test_rows_of_an_unknown_processor_are_replaced_and_not_compared() -> None:
    unknown = table_of(row_of(COLUMNS, "ours", 1.0, 2.0, 1))
    new = table_of(row_of(COLUMNS, "ours", 1.0, 1.0, 1), processor="x86-64 AVX2")
    assert list_worse(unknown, new) == []
    assert merge(unknown, new) == new


@pytest.mark.parametrize(
    ("before", "now", "spread", "is_worse"),
    [
        ((1.0, 2.0, 100), (9.0, 2.0, 100), None, False),  # seconds belong to one machine
        ((1.0, 2.0, 100), (1.0, 1.95, 105), None, False),
        ((1.0, 2.0, 100), (1.0, 2.5, 50), None, False),
        ((1.0, 2.0, 100), (1.0, 1.8, 100), None, True),
        ((1.0, 2.0, 100), (1.0, 2.0, 120), None, True),
        ((1.0, 2.0, 3), (1.0, 2.0, 4), None, False),  # of few MiB a tenth is nothing
        ((1.0, 2.0, 100), (1.0, 1.8, 100), (1.7, 2.1), False),
        ((1.0, 2.0, 100), (1.0, 1.8, 100), (1.75, 1.85), True),
    ],
)
def test_what_got_worse_by_more_than_its_spread_is_listed(
    before: tuple[float, ...], now: tuple[float, ...], spread: tuple[float, float] | None, is_worse: bool
) -> None:
    new = row_of(COLUMNS, "ours", *now, spread={} if spread is None else {"speed-up": spread})
    found = list_worse(table_of(row_of(COLUMNS, "ours", *before)), table_of(new))
    assert len(found) == is_worse
    assert all(line.startswith("toy: ours: ") for line in found)


def test_new_and_incomplete_rows_are_not_worse() -> None:
    earlier = table_of(row_of(COLUMNS, "ours", 1.0, None, 100))
    new = table_of(row_of(COLUMNS, "ours", 1.0, 0.1, None), row_of(COLUMNS, "peer", 1.0, 0.1, 900))
    assert list_worse(earlier, new) == []


def test_tasks_take_optional_inputs_and_need_the_others() -> None:
    task = Task("toy", 1.0, "--reference {SeD} --repeats 3", "--repeats 1", "--helper {Real-ESRGAN}")
    assert task.missing({}) == ["SeD"]
    inputs = {"SeD": Path("/a b/SeD")}
    assert task.command(inputs, tiny=False)[2:] == ["--reference", "/a b/SeD", "--repeats", "3"]
    inputs["Real-ESRGAN"] = Path("/esr")
    assert task.command(inputs, tiny=True)[-4:] == ["--helper", "/esr", "--repeats", "1"]
    assert dataclasses.replace(task, optional="", module="no_such_module").missing(inputs) == ["no_such_module"]
    assert "--helper" not in dataclasses.replace(task, module="no_such_module").command(inputs, tiny=True)


def test_suite_has_every_benchmark_and_fits_into_40_minutes() -> None:
    names = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    # The first needs a GPU, what the second prints is copied into docs/data.md, the third needs four more packages, and
    # there is no time for the other two.
    by_hand = {"gpu", "curation", "loaders", "feature_maps", "feature_cache", "restart"}
    assert names == {task.benchmark for task in SUITE} | by_hand
    assert sum(task.minutes for task in SUITE) < 40


def test_failing_benchmark_costs_its_own_table_alone(tmp_path: Path) -> None:
    docs, peers = tmp_path / "docs", tmp_path / "peers"
    for folder in (docs, peers / "BasicSR", peers / "Real-ESRGAN"):
        folder.mkdir(parents=True)
    names = ("sampling-order-pairs", "degradation", "degradation-memory")
    (docs / "page.md").write_text("\n".join(f"<!-- table: {name} -->\n<!-- end -->" for name in names))
    command = ["python", "-m", "benchmarks", "--run", "degradation", "data_order", "--tiny"]
    done = run_command([*command, "--peers", str(peers), "--docs", str(docs)], tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED degradation --parts time" in done.stdout
    assert "is not the checkout that is needed" in done.stderr
    pairs = read_table(docs / "benchmarks" / "sampling-order-pairs.json")
    shipped = read_table(DOCS / "benchmarks" / "sampling-order-pairs.json")
    found, expected = (
        [row.cells[table.columns[1].heading] for row in table.runs[0].rows] for table in (pairs, shipped)
    )
    assert found == pytest.approx(expected, rel=0.05)
    page = (docs / "page.md").read_text()
    assert page.count("Not measured.") == 1
    assert "| all | 0.15 |" in page
    assert dataclasses.replace(shipped, runs=()) == dataclasses.replace(pairs, runs=())


@pytest.mark.slow
def test_all_benchmarks_without_peers_run_when_tiny(tmp_path: Path) -> None:
    command = ["python", "-m", "benchmarks", "--run", "--tiny", "--docs", str(tmp_path)]
    done = run_command(command, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIPPED degradation --parts time" in done.stdout
    written = {path.stem for path in (tmp_path / "benchmarks").iterdir()}
    needed = [task for task in SUITE if task.tiny is not None and not task.missing({})]
    assert len(written) >= len(needed)


def test_bad_arguments_end_with_exit_code_2(tmp_path: Path) -> None:
    for arguments in (["--run", "nothing"], ["--run", "--tiny"], ["--run", "--peers", "missing"]):
        done = run_command(["python", "-m", "benchmarks", *arguments], tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr

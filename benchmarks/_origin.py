"""Where a table comes from, and handing it over: printed, and as a file where `--json` names a folder."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from _tables import Column, Row, Run, Table, markdown, write_table

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch",)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add the folder that `python -m benchmarks --run` collects tables from."""
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the tables there, too")


def publish(
    name: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    options: argparse.Namespace,
    *,
    libraries: Sequence[str] = LIBRARIES,
) -> None:
    """Print a table, and write its file into the folder of `--json`.

    Args:
        name: Of the table; its file is `docs/benchmarks/NAME.json`.
        columns: In order.
        rows: In order.
        options: `json`, the folder or None; where the benchmark has them `threads` and `device`, `cpu` or `cuda`.
        libraries: Distributions whose versions matter.
    """
    device, processor = describe_machine(getattr(options, "threads", None), libraries), instruction_set()
    if getattr(options, "device", "cpu") == "cuda":
        processor = sys.modules["torch"].cuda.get_device_name()
        device = f"{processor}, {device}"
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    run = Run(command_line(sys.argv), device, today, commit(), tuple(map(_rounded, rows)), processor)
    table = Table(name, tuple(columns), (run,))
    print(f"\n{markdown(table)}\n", flush=True)
    if options.json is not None:
        write_table(options.json, table)


def _rounded(row: Row) -> Row:
    """Return a row with five significant digits per number."""
    cells = {key: _round(value) if isinstance(value, float) else value for key, value in row.cells.items()}
    spread = {key: (_round(least), _round(most)) for key, (least, most) in row.spread.items()}
    return Row(cells, spread, row.targets)


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as the document shows it: without `--json`, and without the places of checkouts and photos."""
    script, *rest = arguments
    if "--json" in rest:
        place = rest.index("--json")
        del rest[place : place + 2]
    shown = (Path(word).name if Path(word).is_absolute() else word for word in rest)
    return " ".join(["python", f"benchmarks/{Path(script).name}", *shown])


def describe_machine(threads: int | None, libraries: Sequence[str] = LIBRARIES) -> str:
    """Return cores that may be used, processor, threads and versions, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = _cpu("model name")
    parts = [f"{cores} CPU cores, {instruction_set()}{f' ({model})' if model else ''}"]
    parts += [] if threads is None else [f"{threads} thread{'s' * (threads > 1)}"]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in libraries]
    return ", ".join(parts)


def instruction_set() -> str:
    """Return the processor's architecture and, on x86, its widest vectors, which decide how long convolutions take.

    Not from torch, which would count in the memory of benchmarks that work without it.
    """
    flags = _cpu("flags").split()
    widest = next((shown for flag, shown in (("avx512f", " AVX-512"), ("avx2", " AVX2")) if flag in flags), "")
    return platform.machine().replace("_", "-") + widest


def _cpu(name: str) -> str:
    """Return what Linux says of the first processor, empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def commit() -> str:
    """Return this checkout's commit, and whether files differ from it."""
    head = first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = first_line(["git", "-C", str(ROOT), "status", "--porcelain", "--", "*.py"])
    return head if changed in {"", "unknown"} else f"{head} with changes"


def first_line(command: Sequence[str]) -> str:
    """Return the first line that a command prints, empty if it prints none, or `unknown` if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.partition("\n")[0].strip()


def extremes(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the most."""
    return min(values), max(values)


def speed_up(slow: Sequence[float], quick: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return how many times as fast the second is by medians, and the extremes over the alternating repeats."""
    each = [one / other for one, other in zip(slow, quick, strict=True)]
    middle = statistics.median(slow) / statistics.median(quick)
    # The ratio of medians may lie outside of what a few pairs reach.
    return middle, (min(middle, *each), max(middle, *each))

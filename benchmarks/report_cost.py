"""How long a report holds up the training thread: our trackers and Accelerate's own MLflow tracker.

Each report has 40 numbers and comes after some computation, as after a very short step. MLflow is a SQLite file; the
last row is an unreachable server. Methods alternate; the table has the time from the call to its return, and
how much longer the next computation takes because a thread works beside it.

Run:
    python benchmarks/report_cost.py --repeats 200
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _origin import add_json_argument, extremes, publish
from _tables import Column, Row, label, ratio, row_of, seconds

VALUES = {f"group{number // 8}/value{number}": number / 7 for number in range(40)}
SETTLE_S = 8
"""Until trackers have opened their stores."""
PEER = "Accelerate's `MLflowTracker`"
COLUMNS: tuple[Column, ...] = (
    label("method"),
    seconds("call, ms", ".3g"),
    seconds("95% of calls below, ms", ".3g"),
    seconds("computation after it, ms", ".3g"),
    ratio("call, of the peer's", "lower", ".3f"),
)
Milliseconds = dict[str, tuple[list[float], list[float]]]
"""Those of each method's calls, and of the computations after them."""


def main() -> int:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="reports of each method")
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads, origin = 1, Path.cwd()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        methods = {
            "nothing": lambda step: None,
            "our trackers: mlflow": ours(Path(folder) / "a", ["mlflow"]),
            "our trackers: mlflow, tensorboard": ours(Path(folder) / "b", ["mlflow", "tensorboard"]),
        }
        time.sleep(SETTLE_S)
        methods[PEER] = accelerates()
        found = measure(methods, options)
        os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
        away = {"our trackers: a server that is away": ours(Path(folder) / "c", ["mlflow"])}
        found |= measure(away, options)
        os.chdir(origin)
    publish("reports", COLUMNS, rows_of(found), options, libraries=("torch", "accelerate", "mlflow"))
    return 0


def ours(folder: Path, names: list[str]) -> Callable[[int], None]:
    """Return our report: the numbers, written to the disk, for some trackers."""
    from pipeline.tracking import Report, RunDescription, open_trackers
    from pipeline.train.report import MetricsFile

    folder.mkdir()
    file = MetricsFile(folder / "metrics.jsonl")
    trackers = open_trackers(
        names,
        RunDescription("benchmark", folder.name),
        folder / "tracking",
        lambda: [Report(images_seen, values) for images_seen, values in file.reports()],
    )

    def report(step: int) -> None:
        file.write(step, VALUES)
        trackers.metrics(VALUES, step)

    return report


def accelerates() -> Callable[[int], None]:
    """Return the report of Accelerate's tracker."""
    from accelerate.tracking import MLflowTracker

    tracker = MLflowTracker("benchmark of accelerate")
    if hasattr(tracker, "start"):
        tracker.start()
    return lambda step: tracker.log(VALUES, step=step)


def measure(methods: dict[str, Callable[[int], None]], options: argparse.Namespace) -> Milliseconds:
    """Return the milliseconds of each method's calls, and of the computations after them."""
    found: Milliseconds = {name: ([], []) for name in methods}
    image = torch.rand(1, 16, 128, 128)
    network = torch.nn.Conv2d(16, 16, 3, padding=1)

    def compute() -> float:
        start_s, count = time.perf_counter(), 0
        while count < 12:
            network(image)
            count += 1
        return 1000 * (time.perf_counter() - start_s)

    for report in methods.values():  # the first opens the trackers
        report(0)
    time.sleep(SETTLE_S)
    for step in range(1, options.repeats + 1):
        for name, report in methods.items():
            compute()
            start_s = time.perf_counter()
            report(step)
            found[name][0].append(1000 * (time.perf_counter() - start_s))
            found[name][1].append(compute())
    return found


def rows_of(found: Milliseconds) -> list[Row]:
    """Return medians, and the 95th percentile of the calls."""
    peer_ms, rows = statistics.median(found[PEER][0]), []
    for name, (calls, after) in found.items():
        call, high = statistics.median(calls), sorted(calls)[int(0.95 * len(calls))]
        quarters = statistics.quantiles(calls, n=4) if len(calls) > 1 else calls * 3
        spread = {"call, of the peer's": extremes([quarter / peer_ms for quarter in quarters])}
        rows.append(row_of(COLUMNS, name, call, high, statistics.median(after), call / peer_ms, spread=spread))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())

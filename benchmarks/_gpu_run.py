"""One run of the training job in a process of its own, watched: images/s, waiting for data, memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from jobs import train_sed
from pipeline.run.session import Session
from pipeline.run.training import LeaderScreen


def run(preset_file: str) -> None:
    """Train, and print what was measured as JSON on the last line."""
    waited: list[tuple[float, float]] = []
    reports: list[tuple[float, int]] = []
    load, report = Session._loader, LeaderScreen.report

    def timed_loader(self: Session) -> Iterator[Any]:
        batches = load(self)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            waited.append((start, time.perf_counter() - start))
            if batch is None:
                return
            yield batch

    def timed_report(self: LeaderScreen, images_seen: int, values: dict[str, float]) -> None:
        # A report has just read the losses, so the device is done with all steps before it.
        reports.append((time.perf_counter(), images_seen))
        report(self, images_seen, values)

    Session._loader = timed_loader
    LeaderScreen.report = timed_report
    start = time.perf_counter()
    code = train_sed.main([preset_file])
    if code:
        sys.exit(code)
    # The first report's steps hold compilation and start-up.
    (begun, first), (ended, last) = reports[0], reports[-1]
    measured: dict[str, Any] = {"images/s": round((last - first) / (ended - begun), 1)}
    waiting = sum(seconds for at, seconds in waited if begun <= at < ended)
    measured["host waits for data"] = round(waiting / (ended - begun), 3)
    measured["first report after, s"] = round(begun - start, 1)
    if torch.cuda.is_available():
        measured["GiB reserved"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    print(json.dumps(measured), flush=True)

"""A run in MLflow, as the tests of tracking open it."""

from __future__ import annotations

from pipeline.tracking import NullTracker, Tracker, open_tracker

PARAMETERS = {"seed": 3, "data.shards": "s" * 900}


def open_run(run_id: str | None = None) -> Tracker | NullTracker:
    return open_tracker("sed tests", "first", run_id, PARAMETERS, {"image_manifest": "abc"})

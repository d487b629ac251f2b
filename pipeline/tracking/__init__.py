"""MLflow: the only room that imports it. `runs` writes what a run does; `registry` keeps its best models."""

from pipeline.tracking.runs import NullTracker, Tracker, open_tracker

__all__ = ["NullTracker", "Tracker", "open_tracker"]

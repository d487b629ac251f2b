"""MLflow: the only room that imports it. `runs` writes what a run does; `registry` keeps its best models."""

from pipeline.tracking.runs import NullTracker, Report, Tracker, open_tracker

__all__ = ["NullTracker", "Report", "Tracker", "open_tracker"]

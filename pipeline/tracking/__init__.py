"""MLflow: the only room that imports it. `runs` records training runs; `registry` stores their best models."""

from pipeline.tracking.runs import NullTracker, Report, Tracker, open_existing, open_tracker

__all__ = ["NullTracker", "Report", "Tracker", "open_existing", "open_tracker"]

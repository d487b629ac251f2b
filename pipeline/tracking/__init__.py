"""MLflow: the only room that imports it. `runs` records training runs; `registry` stores their best models."""

from pipeline.tracking.runs import NullTracker, Report, TrackedDataset, Tracker, open_existing, open_tracker
from pipeline.tracking.source import code

__all__ = ["NullTracker", "Report", "TrackedDataset", "Tracker", "code", "open_existing", "open_tracker"]

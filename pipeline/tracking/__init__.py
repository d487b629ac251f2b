"""Where runs are shown: MLflow, TensorBoard, W&B; and MLflow's registry of models. The only room that imports them.

`trackers` is what training calls; `registry` keeps the best models.
"""

from pipeline.tracking.description import (
    LATEST_UNIX_S,
    Report,
    RunDescription,
    TrackedDataset,
    keep_description,
    read_description,
)
from pipeline.tracking.mlflow_run import known_run_id, knows_run, open_existing, remember_run_id
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.source import code, source_tags
from pipeline.tracking.tracker import TRACKERS, check_trackers
from pipeline.tracking.trackers import Trackers, open_trackers, send_later

__all__ = [
    "LATEST_UNIX_S",
    "TRACKERS",
    "MlflowTracker",
    "Report",
    "RunDescription",
    "TrackedDataset",
    "Trackers",
    "check_trackers",
    "code",
    "keep_description",
    "known_run_id",
    "knows_run",
    "open_existing",
    "open_trackers",
    "read_description",
    "remember_run_id",
    "send_later",
    "source_tags",
]

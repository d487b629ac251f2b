"""A training run that MLflow knows, found by its folder, to add pictures to it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import TrackingError
from pipeline.tracking import NullTracker, open_tracker
from shards.errors import InputError
from shards.format.png import Pixels


@dataclass(frozen=True)
class TrackedRun:
    """A training run in MLflow: its folder's name, its experiment, its position and whether it is finished."""

    name: str
    experiment: str
    run_id: str
    images_seen: int
    is_finished: bool

    def log(self, key: str, picture: Pixels) -> None:
        """Add a picture; the run's status stays as it was.

        Raises:
            TrackingError: MLflow is unreachable, or does not know the run.
        """
        tracker = open_tracker(self.experiment, self.name, self.run_id, {}, {})
        if isinstance(tracker, NullTracker):
            raise TrackingError("the picture is written, but not in MLflow; check MLFLOW_TRACKING_URI")
        tracker.picture(key, picture, self.images_seen)
        tracker.close("FINISHED" if self.is_finished else "KILLED")
        if tracker.run_id != self.run_id:
            raise TrackingError(
                f"MLflow does not know run {self.run_id} of {self.name}; the picture is in the new run "
                f"{tracker.run_id}; check MLFLOW_TRACKING_URI"
            )


def find_tracked_run(path: Path) -> TrackedRun:
    """Find the run of a folder.

    Raises:
        InputError: The folder holds no checkpoint of a tracked run.
    """
    folder = RunFolder(path)
    checkpoint = CheckpointStore(folder.checkpoints).newest()
    run_id = checkpoint.facts.get("mlflow_run_id") if checkpoint else None
    if checkpoint is None or run_id is None:
        raise InputError(
            f"--run {path} holds no checkpoint of a run in MLflow; give the --run-dir of jobs/train_sed.py"
        )
    experiment = folder.read_config().train.report.experiment
    status = folder.read_status()
    is_finished = status is not None and status.state == "finished"
    return TrackedRun(path.resolve().name, experiment, run_id, checkpoint.images_seen, is_finished)

"""A training run that MLflow knows, found by its folder, to add pictures to it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import TrackingError
from pipeline.tracking import open_existing
from shards.errors import InputError
from shards.format.png import Pixels


@dataclass(frozen=True)
class TrackedRun:
    """A training run in MLflow: its ID, its position and whether it is finished."""

    run_id: str
    images_seen: int
    is_finished: bool

    def log(self, pictures: Mapping[str, Pixels]) -> None:
        """Add pictures by their names; the run's status stays as it was.

        Raises:
            TrackingError: MLflow is unreachable, or does not know the run.
        """
        try:
            tracker = open_existing(self.run_id)
        except TrackingError as error:
            raise TrackingError(f"the pictures are written, but not in MLflow: {error}") from error
        for key, picture in pictures.items():
            tracker.picture(key, picture, self.images_seen)
        tracker.close("FINISHED" if self.is_finished else "KILLED")


def find_tracked_run(path: Path) -> TrackedRun:
    """Find the run of a folder.

    Raises:
        InputError: The folder holds no checkpoint of a tracked run.
    """
    folder = RunFolder(path)
    checkpoint = CheckpointStore(folder.checkpoints).newest()
    run_id = checkpoint.facts.get("mlflow_run_id") if checkpoint else None
    if checkpoint is None or run_id is None:
        raise InputError(f"{path} holds no checkpoint of a run in MLflow; give the --run-dir of jobs/train_sed.py")
    status = folder.read_status()
    is_finished = status is not None and status.state == "finished"
    return TrackedRun(run_id, checkpoint.images_seen, is_finished)

"""A training run that MLflow knows, found by its folder, to add pictures to it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import TrackingError
from pipeline.tracking import known_run_id, open_existing
from shards.errors import InputError
from shards.format.png import Pixels


@dataclass(frozen=True)
class TrackedRun:
    """A training run in MLflow: its ID and its position."""

    run_id: str
    images_seen: int

    def log(self, pictures: Mapping[str, Pixels]) -> None:
        """Add pictures by their names; the run's status stays as it was.

        Raises:
            TrackingError: MLflow is unreachable, or does not know the run.
        """
        try:
            run = open_existing(self.run_id)
            for key, picture in pictures.items():
                run.picture(key, picture, self.images_seen)
        except TrackingError as error:
            raise TrackingError(f"the pictures are written, but not in MLflow: {error}") from error


def find_run_id(folder: RunFolder) -> str | None:
    """Return the ID of a folder's run in MLflow; None where MLflow was never reached."""
    if (known := known_run_id(folder.mlflow)) is not None:
        return known
    # Where older versions kept it.
    status, checkpoint = folder.read_status(), CheckpointStore(folder.checkpoints).newest()
    return (status and status.mlflow_run_id) or (checkpoint and checkpoint.facts.get("mlflow_run_id")) or None


def find_tracked_run(path: Path) -> TrackedRun:
    """Find the run of a folder.

    Raises:
        InputError: The folder holds no checkpoint of a tracked run.
    """
    folder = RunFolder(path)
    checkpoint, run_id = CheckpointStore(folder.checkpoints).newest(), find_run_id(folder)
    if checkpoint is None or run_id is None:
        raise InputError(f"{path} holds no checkpoint of a run in MLflow; give the --run-dir of jobs/train_sed.py")
    return TrackedRun(run_id, checkpoint.images_seen)

"""Sends a run that no process trains to a tracker that has missed some of it, or all."""

from __future__ import annotations

from pathlib import Path

from pipeline.checkpoint.run_folder import RunFolder, RunState
from pipeline.run.record import parameters_of, recorded_reports
from pipeline.tracking import RunDescription, known_run_id, knows_run, read_description, send_later
from shards.errors import InputError

TRACKED_STATUS: dict[RunState, str] = {
    "finished": "FINISHED",
    "preempted": "KILLED",
    "failed": "FAILED",
    "running": "KILLED",
}
"""How trackers call the state of a run; one that says `running` and is not was killed."""


def check_run(path: Path) -> None:
    """Check that a folder holds a run.

    Raises:
        InputError: It does not.
    """
    if not RunFolder(path).config.is_file():
        raise InputError(f"{path} holds no run; give the --run-dir of jobs/train_sed.py")


def sync_run(path: Path, tracker: str) -> str:
    """Send what a tracker lacks of a run, and return what to tell the user.

    Args:
        path: The run's folder.
        tracker: Its name.

    Raises:
        InputError: The run is being trained; its process sends it.
        ConfigError: The run's configuration cannot be read.
        TrackingError: The tracker cannot be reached; what it lacks stays in the folder.
    """
    folder = RunFolder(path)
    lock = folder.lock()
    if lock is None:
        raise InputError("is being trained, and the process that trains it sends everything")
    with lock:
        status = folder.read_status()
        ended = TRACKED_STATUS[status.state if status else "running"]
        description = read_description(folder.tracking) or _described(folder)
        files = _files_of_another_store(folder) if tracker == "mlflow" else []
        send_later(tracker, description, folder.tracking, lambda: recorded_reports(folder), ended, files)
    run_id = known_run_id(folder.mlflow) if tracker == "mlflow" else None
    if files:
        return f"{path}: {tracker} has it as run {run_id}, without the pictures, which stay where it was tracked before"
    return f"{path}: {tracker} has all of it{f', as run {run_id}' if run_id else ''}"


def _files_of_another_store(folder: RunFolder) -> list[Path]:
    """Return the files that another store of MLflow received, where this one does not know the run."""
    run_id = known_run_id(folder.mlflow)
    if run_id is None or knows_run(run_id):
        return []
    return [path for path in (folder.config, folder.generator, folder.best_generator) if path.is_file()]


def _described(folder: RunFolder) -> RunDescription:
    """Return the description of a run that is older than `tracking/run.json`."""
    config = folder.read_config().train
    return RunDescription(config.report.experiment, str(config.run_dir), parameters_of(config))

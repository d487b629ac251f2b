"""One SQLite file of several processes, and databases of other versions of MLflow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import run_command
from mlflow import MlflowClient
from other_mlflow import NEWER, OLDER, write_newer, write_older
from processes import run_at_once
from tracked_runs import open_run

from pipeline.tracking import RunDescription, database, registry
from pipeline.tracking.database import DatabaseVersionError
from shards.errors import InputError

NUM_PROCESSES = 4
NUM_STEPS = 60
PRELOAD = ["test_shared_database", "mlflow.store.tracking.sqlalchemy_store", "alembic.command"]


def track(experiment: str, num_steps: int) -> None:
    """Track a run, one point at a time, which is what keeps the file busy."""
    tracker = open_run(Path(f"run-{os.getpid()}"), RunDescription(experiment, "run"))
    for step in range(num_steps):
        tracker.metrics({"loss": step / 2}, step)
    tracker.close("FINISHED")


def histories(uri: str) -> list[dict[int, float]]:
    """The points of every run."""
    client = MlflowClient(uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return [{point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")} for run in runs]


def test_processes_that_start_at_once_on_a_missing_file_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'folder' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    run_at_once(track, [(f"of process {rank}", 1) for rank in range(NUM_PROCESSES)], PRELOAD)
    assert histories(uri) == [{0: 0.0}] * NUM_PROCESSES


def test_processes_that_write_to_one_file_wait_for_each_other(store: str) -> None:
    MlflowClient(store).create_experiment("shared")
    run_at_once(track, [("shared", NUM_STEPS)] * NUM_PROCESSES, PRELOAD)
    assert histories(store) == [{step: step / 2 for step in range(NUM_STEPS)}] * NUM_PROCESSES


def test_database_of_an_older_mlflow_is_refused_untouched_with_the_commands_that_upgrade_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    path = tmp_path / "mlflow.db"
    uri = write_older(path)
    before = path.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    commands = f"copy the file: cp {path} {path}.backup, and upgrade it: mlflow db upgrade {uri}"
    with pytest.raises(DatabaseVersionError, match=rf"older MLflow: its tables are of revision {OLDER}") as raised:
        registry.champion("sr")
    assert str(raised.value).endswith(commands)
    with pytest.raises(DatabaseVersionError):
        registry.fetch("models:/sr@champion")
    open_run(tmp_path / "run").close("FINISHED")
    assert commands in warnings()[0]
    assert path.read_bytes() == before

    for line in (f"cp {path} {path}.backup", f"mlflow db upgrade {uri}"):
        done = run_command(shlex.split(line), tmp_path)
        assert done.returncode == 0, done.stderr
    assert Path(f"{path}.backup").read_bytes() == before
    assert registry.champion("sr") is None


def test_database_of_a_newer_mlflow_is_refused_untouched(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", write_newer(path, empty_database))
    before = path.read_bytes()
    with pytest.raises(DatabaseVersionError, match=rf"newer MLflow: .* {NEWER} .*pip install --upgrade mlflow"):
        registry.champion("sr")
    assert path.read_bytes() == before


def test_database_whose_driver_is_missing_is_refused_with_the_package() -> None:
    check = database.check_server_database
    with pytest.raises(InputError, match="requires the package pyodbc, which is not installed"):
        check("mssql+pyodbc://me:c4n4ry@127.0.0.1/db")

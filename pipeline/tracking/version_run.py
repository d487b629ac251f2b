"""The run that a registered version is logged in: the one that trained it, or one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.tracking.mlflow_run import experiment_named
from pipeline.tracking.source import source_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

OF_FILES = "registered from files"
"""Experiment of versions that no known run has trained."""


def run_of_version(client: MlflowClient, name: str, run_id: str | None) -> RunInfo:
    """Return the run that trained a model if MLflow knows it, or a new one.

    Neither is made MLflow's active run, which would set it to RUNNING, and a killed promotion would leave it so. The
    status of a known run stays; that of a new one is KILLED, which is true unless `end_own_run` follows.
    """
    if known := known_run(client, run_id):
        return known
    run = client.create_run(experiment_named(client, OF_FILES), tags=source_tags(), run_name=_run_name(name)).info
    client.set_terminated(run.run_id, "KILLED")
    return run


def end_own_run(client: MlflowClient, run: RunInfo, known_id: str | None, status: str) -> None:
    """End the run of a version as FINISHED or FAILED, unless it is the one that trained the model."""
    if run.run_id != known_id:
        client.set_terminated(run.run_id, status)


def known_run(client: MlflowClient, run_id: str | None) -> RunInfo | None:
    """Return the run if this server knows it: a run folder may have been trained against another one."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        return client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def end_killed_runs(client: MlflowClient, name: str, experiment_id: str) -> None:
    """End runs that are of versions alone, and whose process was killed between their creation and their end."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if run.info.run_name == _run_name(name):
            client.set_terminated(run.info.run_id, "KILLED")


def _run_name(name: str) -> str:
    return f"register {name}"

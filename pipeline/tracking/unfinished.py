"""What a killed promotion leaves in MLflow, and its removal by the next one into the same registered model.

A version and its model in MLflow are tagged as unfinished from their creation until the version has its alias. So the
holder of the promotion lock finds what nobody will finish, and sees no version that is still being registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.tracking.names import SCHEME, text
from pipeline.tracking.version_run import OF_FILES, end_killed_runs, known_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_TAG = "unfinished_registration"
_MAX_TAG_CHARACTERS = 5000
_MAX_MODELS = 100


def unfinished(name: str) -> dict[str, str]:
    """Return the tag with which a version of a registered model, and its model in MLflow, are created."""
    return {_TAG: text(name, _MAX_TAG_CHARACTERS)}


def versions_of(client: MlflowClient, name: str) -> Sequence[ModelVersion]:
    """Return all versions of a registered model."""
    quote = '"' if "'" in name else "'"
    return client.search_model_versions(f"name={quote}{name}{quote}")


def finish(client: MlflowClient, name: str, version: str) -> None:
    """Remove the tag of a version that is complete; one without it stays as it is."""
    found = client.get_model_version(name, version)
    if _TAG in found.tags:
        model = client.get_logged_model(_model_of(found))
        if _TAG in model.tags:  # first: a model that has it is removed where no version is found to be finished
            client.delete_logged_model_tag(model.model_id, _TAG)
        client.delete_model_version_tag(name, version, _TAG)


def remove_unfinished(client: MlflowClient, name: str, run_id: str | None) -> None:
    """Remove what killed promotions have left of versions, and end their runs; call it only while holding the lock.

    A version that has its alias is finished instead.

    Args:
        client: Of MLflow.
        name: Registered model.
        run_id: The run of the model to be promoted; models without a version are removed from its experiment too.
    """
    for version in versions_of(client, name):
        if _TAG in version.tags:
            number = str(version.version)
            if client.get_model_version(name, number).aliases:
                finish(client, name, number)
            else:
                client.delete_model_version(name, number)
    if run := known_run(client, run_id):
        _remove_models(client, name, run.experiment_id)
    if experiment := client.get_experiment_by_name(OF_FILES):
        for killed in _remove_models(client, name, experiment.experiment_id):
            client.set_terminated(killed, "KILLED")
        end_killed_runs(client, name, experiment.experiment_id)


def remove(client: MlflowClient, name: str, model_id: str) -> None:
    """Remove a version that cannot be completed, and its model in MLflow."""
    for version in versions_of(client, name):
        if _model_of(version) == model_id:
            client.delete_model_version(name, str(version.version))
    client.delete_logged_model(model_id)


def _remove_models(client: MlflowClient, name: str, experiment_id: str) -> list[str]:
    """Remove models in MLflow whose version is gone, or never was; return the IDs of their runs."""
    run_ids = []
    kept = {_model_of(version) for version in versions_of(client, name)}
    for model in client.search_logged_models([experiment_id], f"tags.{_TAG} != ''", max_results=_MAX_MODELS):
        if unfinished(name).items() <= model.tags.items() and model.model_id not in kept:
            client.delete_logged_model(model.model_id)
            run_ids.append(str(model.source_run_id))
    return run_ids


def _model_of(version: ModelVersion) -> str:
    """Return the ID of a version's model in MLflow, where its files are."""
    return (version.source or "").removeprefix(SCHEME)

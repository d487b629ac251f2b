"""The model registry: versions, their numbers, and the aliases `champion`, `challenger` and `best-METRIC`.

A version is `generator.safetensors`, for `MODEL = models:/NAME@champion` here and for other programs, beside the code
that upscales with it for those who serve it (`served_model`); nothing in it is a pickle. Versions of earlier releases
hold a program of torch.export or need this package; `fetch` reads them all.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import CheckpointError
from pipeline.tracking.database import locked
from pipeline.tracking.environment import check_reachable, first_line, quiet
from pipeline.tracking.moved import correct_paths, current_location, sqlite_file
from pipeline.tracking.names import SCHEME, metric_name, text
from pipeline.tracking.packages import (
    CARD,
    WEIGHTS,
    Package,
    attach,
    check_stored,
    create_model,
    import_path_restored,
    log_package,
)
from pipeline.tracking.promotion_lock import promotion_lock
from pipeline.tracking.unfinished import finish, remove, remove_unfinished, unfinished, versions_of
from pipeline.tracking.version_run import end_own_run, run_of_version
from shards.errors import InputError
from shards.secrets import without_secrets

CHAMPION = "champion"
CHALLENGER = "challenger"
"""The latest version that was not proven better than the champion."""
BEST = "best-"
"""Begins the alias of the version with the best mean by a metric."""
EVALUATION = "evaluation_digest"
"""Tag that names the images on which a version was measured, down to the last byte."""
_NOT_IN_ALIASES = re.compile(r"[^\w-]")
_SCALE = "scale"
_MAX_TAG_CHARACTERS = 100_000
_MAX_DESCRIPTION_CHARACTERS = 5000


@dataclass(frozen=True)
class Champion:
    """The version that the alias points to, with its tags."""

    version: str
    tags: Mapping[str, str]


def champion(name: str) -> Champion | None:
    """Return the champion of a registered model; None when there is no model or no alias yet.

    Raises:
        CheckpointError: The server cannot be reached, or accepts no model of this name.
    """
    found = _find(name, lambda client: client.get_model_version_by_alias(name, CHAMPION))
    return None if found is None else Champion(str(found.version), dict(found.tags))


@dataclass(frozen=True)
class Place:
    """A version, and the run that it is logged in."""

    name: str
    version: str
    run_id: str
    experiment_id: str

    @property
    def run_link(self) -> str:
        """Of the run, within MLflow's pages."""
        return f"#/experiments/{quote(self.experiment_id, safe='')}/runs/{quote(self.run_id, safe='')}"


def _no_card(_: Place) -> str:
    return ""


def register(
    name: str,
    package: Package,
    tags: Mapping[str, str],
    run_id: str | None,
    metrics: Mapping[str, float],
    *,
    card: Callable[[Place], str] = _no_card,
    pictures: Sequence[Path] = (),
) -> str:
    """Register a new version and check that the stored model computes what the generator does.

    A version that cannot be completed is deleted again. It is complete when `name_champion` or `name_challenger` has
    named it; until then, a later promotion may remove it as one that was killed (`clear`).

    Args:
        name: Registered model; created if needed.
        package: What the version consists of.
        tags: Facts of the version.
        run_id: The MLflow run that trained it; a run of its own where that is None or unknown to the server.
        metrics: Its numbers, logged with the model.
        card: Returns its model card, in Markdown: the version's description, and `README.md` of the model.
        pictures: Files that the card names, stored beside it.

    Returns:
        The version.

    Raises:
        CheckpointError: The server cannot be reached, or the stored model computes another output.
    """
    with _reporting_errors(), import_path_restored():
        import mlflow

        correct_paths(mlflow.get_tracking_uri())
        client = mlflow.MlflowClient()
        run, tag = run_of_version(client, name, run_id), unfinished(name)
        model_id = create_model(run, tag)
        try:
            version = log_package(name, package, metrics, run, model_id, tag)
            text_of_card = card(Place(name, version, run.run_id, run.experiment_id))
            _describe(name, version, tags, text_of_card)
            attach(model_id, text_of_card, pictures)
            check_stored(f"{SCHEME}{name}/{version}", package)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                remove(client, name, model_id)
                end_own_run(client, run, run_id, "FAILED")
            raise
        end_own_run(client, run, run_id, "FINISHED")
        return version


def _describe(name: str, version: str, tags: Mapping[str, str], card: str) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, metric_name(key), text(value, _MAX_TAG_CHARACTERS))
    if card:
        client.update_model_version(name, version, description=_as_description(card))
    if _SCALE in tags:
        client.set_registered_model_tag(name, _SCALE, tags[_SCALE])


def _as_description(card: str) -> str:
    """Return as many whole sections of a card as MLflow stores."""
    card = text(card, len(card))
    if len(card) <= _MAX_DESCRIPTION_CHARACTERS:
        return card
    note = f"\n\nThe whole card is {CARD}, among the model's files.\n"
    sections, _, _ = card[: _MAX_DESCRIPTION_CHARACTERS - len(note)].rpartition("\n## ")
    return sections.rstrip() + note


def registered_scale(name: str) -> int | None:
    """Return the scale of a registered model's versions; None where none is registered, or none records it.

    Raises:
        CheckpointError: The server cannot be reached, or accepts no model of this name.
    """
    found = _find(name, lambda client: client.get_registered_model(name))
    scale = "" if found is None else found.tags.get(_SCALE, "")
    return int(scale) if scale.isdecimal() else None


def _find(name: str, look_up: Callable[[Any], Any]) -> Any:
    """Return what a look-up with MLflow's client finds of a registered model; None where it does not exist."""
    with _reporting_errors():
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.utils.validation import _validate_model_name

        _validate_model_name(name)
        if "?" in name or not name.isprintable():
            raise CheckpointError(
                f"a registered model cannot be called {name!r}, which MLflow takes and does not find again; give "
                "another --name, without '?' and control characters"
            )
        try:
            return look_up(mlflow.MlflowClient())
        except MlflowException as error:
            has_no_alias = error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in error.message
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or has_no_alias:
                return None
            raise


def name_champion(name: str, version: str) -> None:
    """Point the alias `champion` to a version.

    Raises:
        CheckpointError: The server cannot be reached.
    """
    _set_alias(name, CHAMPION, version)


def name_challenger(name: str, version: str) -> None:
    """Point the alias `challenger` to a version.

    Raises:
        CheckpointError: The server cannot be reached.
    """
    _set_alias(name, CHALLENGER, version)


def name_best(name: str, version: str, is_higher_better: Mapping[str, bool]) -> dict[str, str]:
    """Point `best-METRIC` to the version with the best mean, among those measured on the images of a version.

    Of equals the oldest is the best.

    Args:
        name: Registered model.
        version: The version whose images count.
        is_higher_better: By metric.

    Returns:
        The best version by metric.

    Raises:
        CheckpointError: The server cannot be reached.
    """
    with _reporting_errors():
        import mlflow

        client = mlflow.MlflowClient()
        ours = client.get_model_version(name, version).tags.get(EVALUATION)
        versions = versions_of(client, name)
        rivals = sorted((one for one in versions if one.tags.get(EVALUATION) == ours), key=lambda one: int(one.version))
        best = {}
        for metric, is_higher in is_higher_better.items():
            tags = {str(one.version): one.tags.get(metric_name(metric), "") for one in rivals}
            means = {number: mean for number, tag in tags.items() if (mean := _finite(tag)) is not None}
            if means:
                best[metric] = (max if is_higher else min)(means, key=means.__getitem__)
                client.set_registered_model_alias(name, best_alias(metric), best[metric])
        return best


def _finite(tag: str) -> float | None:
    """Return the number of a tag; None where it is none: a version without it, or a tag that a person edited."""
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(tag)):
            return number
    return None


def best_alias(metric: str) -> str:
    """Return the alias of the best version by a metric; MLflow accepts letters, digits, `_` and `-`."""
    return BEST + _NOT_IN_ALIASES.sub("-", metric)


def _set_alias(name: str, alias: str, version: str) -> None:
    with _reporting_errors():
        import mlflow

        client = mlflow.MlflowClient()
        client.set_registered_model_alias(name, alias, version)
        finish(client, name, version)


def clear(name: str, run_id: str | None) -> None:
    """Remove what killed promotions have left of versions of a registered model, and end their runs.

    Args:
        name: Registered model.
        run_id: The MLflow run that trained the model to be promoted; its experiment is cleared too.

    Raises:
        CheckpointError: The server cannot be reached.
    """
    with exclusive(name), _reporting_errors():
        import mlflow

        remove_unfinished(mlflow.MlflowClient(), name, run_id)


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock of a registered model: one promotion at a time reads the champion and moves the alias.

    Raises:
        CheckpointError: The server cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        with _reporting_errors():
            import mlflow

            path = sqlite_file(mlflow.get_registry_uri())
            stack.enter_context(locked(path) if path else promotion_lock(mlflow.MlflowClient(), name))
        yield


def fetch(uri: str) -> Path:
    """Return the local path of the weights of `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        CheckpointError: There is no such version, its files are gone, or it was not registered by jobs/promote.py.
    """
    with quiet():
        import mlflow
        import mlflow.artifacts

        place = ""
        try:
            check_reachable(mlflow.get_tracking_uri())
            place = current_location(mlflow.get_tracking_uri(), _location_of(uri))
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=place))
        except InputError:
            raise
        except Exception as error:  # MLflow, its database and each store have errors of their own
            raise CheckpointError(
                f"{uri} cannot be fetched from {without_secrets(mlflow.get_tracking_uri())}: "
                f"{_lost(place) or first_line(error)}\n"
                "  Is the name right, and MLFLOW_TRACKING_URI set to the server that knows it? "
                "jobs/promote.py registers a model"
            ) from error
    weights = next(filter(Path.is_file, (folder / place / WEIGHTS for place in ("extra_files", "artifacts"))), None)
    if weights is None:
        raise CheckpointError(f"{uri} holds no {WEIGHTS}; it was not registered by jobs/promote.py")
    return weights


def _location_of(uri: str) -> str:
    """Return where the files of a registered version are: a folder, or the address of a store."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    place = uri
    while place.startswith(SCHEME):  # a version names a logged model, which names a location
        place = str(ModelsArtifactRepository.get_underlying_uri(place))
    return place


def _lost(place: str) -> str | None:
    folder = place.removeprefix("file://")
    if not folder.startswith("/") or Path(folder).exists():
        return None
    return (
        f"its files were in {folder}, which is gone; move that folder back, or register another model in its place: "
        "jobs/promote.py MODEL --name NAME --force"
    )


@contextlib.contextmanager
def _reporting_errors() -> Iterator[None]:
    """Turn any error of MLflow, its database or its store into one that names the tracking URI."""
    with quiet():
        import mlflow

        try:
            check_reachable(mlflow.get_tracking_uri())
            yield
        except InputError:
            raise
        except Exception as error:
            is_about_a_value = getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"
            remedy = "or give another --name" if is_about_a_value else "and that the server runs"
            raise CheckpointError(
                f"MLflow at {without_secrets(mlflow.get_tracking_uri())} refused: {first_line(error)}\n"
                f"  Check MLFLOW_TRACKING_URI {remedy}; nothing was promoted"
            ) from error

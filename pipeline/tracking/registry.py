"""The model registry: versions, their numbers, and the aliases `champion` and `challenger`.

A version holds the network twice: as MLflow's own model (torch.export, no pickle, any image size) for those who serve
it, and as `generator.safetensors` for `MODEL = models:/NAME@champion` here and for other programs. A network that torch
does not export for any size is `served_model` instead, which loads those weights with this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import CheckpointError
from pipeline.tracking.database import locked
from pipeline.tracking.environment import check_reachable, first_line, quiet
from pipeline.tracking.moved import correct_paths, current_location, sqlite_file
from pipeline.tracking.names import SCHEME, metric_name, text
from pipeline.tracking.promotion_lock import promotion_lock
from shards.errors import InputError
from shards.secrets import without_secrets

CHAMPION = "champion"
CHALLENGER = "challenger"
"""The latest version that was not proven better than the champion."""
WEIGHTS = "generator.safetensors"
SERVED = Path(__file__).with_name("served_model.py")
_EXAMPLE_SHAPE = (2, 3, 24, 32)
_REQUIREMENTS = ["torch", "numpy"]
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


def register(
    name: str,
    module: nn.Module,
    weights: Path,
    tags: Mapping[str, str],
    run_id: str | None,
    metrics: Mapping[str, float],
    description: str = "",
    *,
    is_one_graph: bool = True,
) -> str:
    """Register a generator as a new version and check that the stored model computes the same.

    A version that cannot be completed is deleted again.

    Args:
        name: Registered model; created if needed.
        module: The generator, in evaluation mode on the CPU.
        weights: Its safetensors file.
        tags: Facts of the version.
        run_id: The MLflow run that trained it; a run of its own where that is None or unknown to the server.
        metrics: Its numbers, logged with the model.
        description: Of the version; Markdown.
        is_one_graph: Whether torch can export the module for images of any size.

    Returns:
        The version.

    Raises:
        CheckpointError: The server cannot be reached, or the stored model gives another output.
    """
    with _reporting_errors():
        import mlflow

        correct_paths(mlflow.get_tracking_uri())
        example = np.random.RandomState(0).random_sample(_EXAMPLE_SHAPE).astype(np.float32)
        with _run_to_log_in(name, run_id):
            version = _log_model(name, module if is_one_graph else None, weights, example, metrics)
            try:
                _describe(name, version, tags, description)
                load = _load_graph if is_one_graph else _load_served
                _check_stored(f"{SCHEME}{name}/{version}", load, module, example)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    mlflow.MlflowClient().delete_model_version(name, version)
                raise
        return version


def _describe(name: str, version: str, tags: Mapping[str, str], description: str) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, metric_name(key), text(value, _MAX_TAG_CHARACTERS))
    if description:
        client.update_model_version(name, version, description=text(description, _MAX_DESCRIPTION_CHARACTERS))
    if _SCALE in tags:
        client.set_registered_model_tag(name, _SCALE, tags[_SCALE])


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


@contextlib.contextmanager
def _run_to_log_in(name: str, run_id: str | None) -> Iterator[None]:
    """Make the run that trained the model, or one of its own, MLflow's active one; its status is preserved.

    MLflow sets an active run to RUNNING, and a killed promotion would leave it so.
    """
    import mlflow

    known = _known_run(run_id)
    status = mlflow.MlflowClient().get_run(known).info.status if known else "FINISHED"
    # A name given along with a known run would rename it.
    run = mlflow.start_run(run_id=known, run_name=None if known else f"register {name}")
    try:
        mlflow.MlflowClient().update_run(run.info.run_id, status=status)
        yield
    finally:
        mlflow.end_run(status)


def _known_run(run_id: str | None) -> str | None:
    """Return the run if this server knows it: a run folder may have been trained against another one."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        return mlflow.MlflowClient().get_run(run_id).info.run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _log_model(
    name: str, module: nn.Module | None, weights: Path, example: np.ndarray, metrics: Mapping[str, float]
) -> str:
    """Log a version of a module, or of its weights alone."""
    import mlflow
    import mlflow.pyfunc
    import mlflow.pytorch as mlflow_pytorch

    common: dict[str, Any] = {"name": "generator", "signature": _signature(), "input_example": example}
    common |= {"registered_model_name": name}
    if module is None:
        info = mlflow.pyfunc.log_model(
            python_model=str(SERVED),
            artifacts={"weights": str(weights)},
            pip_requirements=[*_REQUIREMENTS, "spandrel"],
            metadata={"weights": f"artifacts/{WEIGHTS}"},
            **common,
        )
    else:
        info = mlflow_pytorch.log_model(
            module,
            extra_files=[str(weights)],
            pip_requirements=_REQUIREMENTS,
            metadata={"weights": f"extra_files/{WEIGHTS}"},
            **common,
        )
    for metric, value in metrics.items():
        mlflow.log_metric(metric_name(metric), value, model_id=info.model_id)
    return str(info.registered_model_version)


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


def _set_alias(name: str, alias: str, version: str) -> None:
    with _reporting_errors():
        import mlflow

        mlflow.MlflowClient().set_registered_model_alias(name, alias, version)


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


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    # Explicit: an inferred signature would fix the example's height and width.
    image = Schema([TensorSpec(np.dtype(np.float32), (-1, 3, -1, -1))])
    return ModelSignature(inputs=image, outputs=image)


def _load_graph(uri: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import mlflow.pytorch as mlflow_pytorch

    return mlflow_pytorch.load_model(uri)


def _load_served(uri: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import mlflow.pyfunc

    served = mlflow.pyfunc.load_model(uri)
    return lambda image: torch.from_numpy(served.predict(image.numpy()))


def _check_stored(
    uri: str, load: Callable[[str], Callable[[torch.Tensor], torch.Tensor]], module: nn.Module, example: np.ndarray
) -> None:
    stored = load(uri)
    # Another size than the example's: a stored model that accepts one size only must not pass.
    image = torch.from_numpy(example[:1, :, :17, :])
    with torch.inference_mode():
        difference = float((stored(image) - module(image)).abs().max())
    if not difference <= 1e-5:
        raise CheckpointError(f"{uri} was stored, but its output differs by {difference:.2g}; it was not promoted")


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
            raise CheckpointError(
                f"MLflow at {without_secrets(mlflow.get_tracking_uri())} refused: {first_line(error)}\n"
                "  Check MLFLOW_TRACKING_URI and that the server runs; nothing was promoted"
            ) from error

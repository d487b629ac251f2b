"""What a registered version consists of, as MLflow stores it: weights, the code that upscales with them, and a card."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import CheckpointError
from pipeline.tracking.names import metric_name, text

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

WEIGHTS = "generator.safetensors"
CARD = "README.md"
_SERVED = Path(__file__).with_name("served_model.py")
_LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Package:
    """What a version consists of.

    Attributes:
        weights: The generator's safetensors file.
        code: Packages and modules that are shipped.
        requirements: Libraries, with versions, that pip installs for them.
        settings: Read by `served_model`; `mlflow.pyfunc.load_model(..., model_config=...)` overrides them.
        parameters: Whole numbers that a request may set, with their defaults.
        request: What a client sends, as an example.
        example: An image, as an array.
        expected: The generator's output for it.
    """

    weights: Path
    code: Sequence[Path]
    requirements: Sequence[str]
    settings: Mapping[str, Any]
    parameters: Mapping[str, int]
    request: Mapping[str, Any]
    example: np.ndarray
    expected: np.ndarray


def create_model(run: RunInfo, tags: Mapping[str, str]) -> str:
    """Create a model in MLflow, whose files follow, as one of a run; return its ID."""
    import mlflow

    parameters = mlflow.MlflowClient().get_run(run.run_id).data.params
    return mlflow.initialize_logged_model(
        "generator", run.run_id, dict(tags), parameters, experiment_id=run.experiment_id
    ).model_id


def log_package(
    name: str, package: Package, metrics: Mapping[str, float], run: RunInfo, model_id: str, tags: Mapping[str, str]
) -> str:
    """Log the files and numbers of a model, and register it with tags; return the version.

    The run is not made MLflow's active one, which would set it to RUNNING.
    """
    import mlflow
    import mlflow.pyfunc
    from mlflow.models import Model

    info = Model.log(
        artifact_path=None,
        name="generator",
        flavor=mlflow.pyfunc,
        python_model=str(_SERVED),
        artifacts={"weights": str(package.weights)},
        code_paths=[str(path) for path in package.code],
        model_config=dict(package.settings),
        pip_requirements=[f"mlflow=={mlflow.__version__}", *package.requirements],
        signature=_signature(package.parameters),
        input_example=dict(package.request),
        registered_model_name=name,
        run_id=run.run_id,
        model_id=model_id,
        tags=dict(tags),
    )
    for metric, value in metrics.items():
        mlflow.MlflowClient().log_metric(run.run_id, metric_name(metric), value, model_id=model_id)
    return str(info.registered_model_version)


def _signature(parameters: Mapping[str, int]) -> Any:
    """Return a signature of parameters alone: MLflow's types cover arrays or pictures, and a version takes both."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ParamSchema, ParamSpec

    specs = [ParamSpec(parameter, "long", default) for parameter, default in parameters.items()]
    return ModelSignature(params=ParamSchema(specs))


def attach(model_id: str, card: str, pictures: Sequence[Path]) -> None:
    """Store a card and its pictures with the model."""
    import mlflow

    if not card:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CARD).write_text(text(card, len(card)), encoding="utf-8")
        for picture in pictures:
            shutil.copyfile(picture, folder / picture.name)
        mlflow.MlflowClient().log_model_artifacts(model_id, str(folder))


def check_stored(uri: str, package: Package) -> None:
    """Check that a stored version computes what its generator does.

    Raises:
        CheckpointError: Its output is another.
    """
    import mlflow.pyfunc

    served = mlflow.pyfunc.load_model(uri, model_config={"device": "cpu"})
    difference = float(np.abs(served.predict(package.example) - package.expected).max())
    if not difference <= _LARGEST_DIFFERENCE:
        raise CheckpointError(f"{uri} was stored, but its output differs by {difference:.2g}; it was not promoted")


@contextlib.contextmanager
def import_path_restored() -> Iterator[None]:
    """Undo what MLflow adds to the import path when it loads a version: this process has the project itself."""
    path, entries = sys.path, list(sys.path)
    try:
        yield
    finally:
        path[:] = entries
        sys.path = path

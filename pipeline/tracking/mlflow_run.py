"""A run in MLflow by its ID, and how its errors are reported.

`MLFLOW_TRACKING_URI` says where; the default is the SQLite file `mlflow.db` in the working folder.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from pipeline.errors import RefusedError, TrackingError
from pipeline.tracking.environment import check_reachable, first_line, prepare
from pipeline.tracking.moved import correct_paths, sqlite_file
from pipeline.tracking.names import picture_name
from shards.format.files import write_atomically
from shards.format.storage import read_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
_RUN_ID = "run_id"
_MAX_ID_BYTES = 100
_FORM_OF_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Error codes that concern single values. Any other one means that the server itself is faulty.
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"})
# MLflow's kind of experiments that train models, as against those that trace language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_MS_PER_S = 1000

P = ParamSpec("P")
T = TypeVar("T")


def known_run_id(folder: Path) -> str | None:
    """Return the ID of the run that is kept in a folder; None where MLflow has never been reached."""
    try:
        text = read_whole(folder / _RUN_ID, _MAX_ID_BYTES).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    if _FORM_OF_ID.fullmatch(text):
        return text
    _LOG.warning("%s holds no ID of a run in MLflow, and is not used", folder / _RUN_ID)
    return None


def remember_run_id(folder: Path, run_id: str) -> None:
    """Keep the ID of a run in a folder, for later calls."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _RUN_ID, f"{run_id}\n".encode())


def experiment_named(client: MlflowClient, name: str) -> str:
    """Return the ID of the experiment of a name, which is created if need be."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, tags=_EXPERIMENT_TAGS)
    except MlflowException:
        if found := client.get_experiment_by_name(name):  # another process has just created it
            return found.experiment_id
        raise


def raising_tracking_errors(call: Callable[P, T]) -> Callable[P, T]:
    """Make every error of MLflow, its database or its store a `TrackingError` of one line."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except TrackingError:
            raise
        except Exception as error:
            is_refusal = getattr(error, "error_code", None) in REFUSALS
            raise (RefusedError if is_refusal else TrackingError)(first_line(error)) from error

    return wrapped


def check_store() -> None:
    """Check that MLflow's store can be used, and correct the paths in the database of a project that was moved.

    Raises:
        ConnectionError: It cannot; names the reason.
    """
    import mlflow

    check_reachable(mlflow.get_tracking_uri())
    correct_paths(mlflow.get_tracking_uri())


@raising_tracking_errors
def knows_run(run_id: str) -> bool:
    """Return whether MLflow has a run: one that another store has had is sent anew, with its files.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    prepare()
    import mlflow
    from mlflow.exceptions import MlflowException

    check_store()
    try:
        mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


class MlflowRun:
    """A run that MLflow knows, called directly: whoever must not wait calls it from a `Background`.

    Args:
        run_id: Its ID.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    @functools.cached_property
    def _client(self) -> MlflowClient:
        import mlflow

        return mlflow.MlflowClient()

    @raising_tracking_errors
    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Log an (H, W, 3) uint8 picture; those of one name at several positions are one series."""
        self._client.log_image(self.run_id, image, key=picture_name(name), step=images_seen)

    @raising_tracking_errors
    def file(self, path: Path) -> None:
        """Log a file as an artifact."""
        self._client.log_artifact(self.run_id, str(path))

    @raising_tracking_errors
    def adopt(self, run_ids: Sequence[str]) -> None:
        """Show other runs nested under this one."""
        for run_id in run_ids:
            self._client.set_tag(run_id, "mlflow.parentRunId", self.run_id)

    @raising_tracking_errors
    def end(self, status: str, unix_s: float | None = None) -> None:
        """End the run as FINISHED, KILLED or FAILED."""
        self._client.set_terminated(self.run_id, status, None if unix_s is None else round(unix_s * _MS_PER_S))


@raising_tracking_errors
def open_existing(run_id: str) -> MlflowRun:
    """Return a run, to add pictures or files to it; its status and source stay as they are.

    Raises:
        TrackingError: MLflow cannot be reached, or does not know the run.
    """
    prepare()
    import mlflow
    from mlflow.exceptions import MlflowException

    store = sqlite_file(mlflow.get_tracking_uri())
    if store is not None and not store.exists():  # connecting would make an empty one
        raise TrackingError(f"no database {store}; check MLFLOW_TRACKING_URI")
    check_store()
    try:
        return MlflowRun(mlflow.MlflowClient().get_run(run_id).info.run_id)
    except MlflowException as error:
        raise TrackingError(f"MLflow does not know run {run_id}; check MLFLOW_TRACKING_URI") from error

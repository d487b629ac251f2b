"""A run in MLflow.

`MLFLOW_TRACKING_URI` says where; the default is the SQLite file `mlflow.db` in the working folder.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from pipeline.errors import RefusedError, TrackingError
from pipeline.tracking.description import Report, RunDescription, TrackedDataset
from pipeline.tracking.environment import check_reachable, first_line, prepare
from pipeline.tracking.moved import correct_paths, sqlite_file
from pipeline.tracking.names import metric_name, picture_name, text, title
from pipeline.tracking.tracker import TRACKERS, TrackerKind
from shards.format.files import write_atomically
from shards.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_LOG = logging.getLogger(__name__)
_RUN_ID = "run_id"
_BATCH_LENGTH = 500
_MAX_PARAMETER_CHARACTERS = 500
_MAX_TAG_CHARACTERS = 5000
_MAX_DIGEST_CHARACTERS = 36
_MS_PER_S = 1000
# Error codes that concern single values. Any other answer means that the server itself is faulty.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
# Opens the UI on training runs and their charts, not on traces of language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

P = ParamSpec("P")
T = TypeVar("T")


def known_run_id(folder: Path) -> str | None:
    """Return the ID of the run that is kept in a folder; None where MLflow has never been reached."""
    path = folder / _RUN_ID
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


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


def _raising_tracking_errors(call: Callable[P, T]) -> Callable[P, T]:
    """Make every error of MLflow, its database or its store a `TrackingError` of one line."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except TrackingError:
            raise
        except Exception as error:
            is_refusal = getattr(error, "error_code", None) in _REFUSALS
            raise (RefusedError if is_refusal else TrackingError)(first_line(error)) from error

    return wrapped


class MlflowTracker:
    """One run in MLflow, called directly: whoever must not wait calls it from a `Background`.

    Args:
        description: Of the run, which is created where MLflow does not know it.
        folder: Where its ID is kept.
    """

    def __init__(self, description: RunDescription, folder: Path) -> None:
        self._description = description
        self._folder = folder
        self._run_id = ""
        self._sent: dict[str, set[int]] = {}
        self._pictures: set[str] = set()
        self._has_warned = False

    @functools.cached_property
    def _client(self) -> MlflowClient:
        import mlflow

        return mlflow.MlflowClient()

    @property
    def run_id(self) -> str:
        """The run's ID, once it is open."""
        return self._run_id

    @classmethod
    @_raising_tracking_errors
    def existing(cls, run_id: str) -> MlflowTracker:
        """Return a run that MLflow knows, to add pictures or files to it; its status and source stay as they are.

        Raises:
            TrackingError: MLflow cannot be reached, or does not know the run.
        """
        prepare()
        import mlflow
        from mlflow.exceptions import MlflowException

        run = cls(RunDescription("", ""), Path())
        store = sqlite_file(mlflow.get_tracking_uri())
        if store is not None and not store.exists():  # connecting would make an empty one
            raise TrackingError(f"no database {store}; check MLFLOW_TRACKING_URI")
        _check_store()
        try:
            run._run_id = run._client.get_run(run_id).info.run_id
        except MlflowException as error:
            raise TrackingError(f"MLflow does not know run {run_id}; check MLFLOW_TRACKING_URI") from error
        return run

    @_raising_tracking_errors
    def open(self) -> None:
        """Find the run, or create it, and read what MLflow has of it.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        prepare()
        _check_store()
        known, description = known_run_id(self._folder), self._description
        self._run_id = self._resumed(known) or self._created(description)
        if self._run_id != known:
            remember_run_id(self._folder, self._run_id)
            self._log_parameters(description.parameters)
        self._log_tags(description.tags)
        if description.datasets:
            self._log_datasets(description.datasets)
        self._sent = self._find_sent()
        self._pictures = {Path(item.path).name for item in self._client.list_artifacts(self._run_id, "images")}

    def _resumed(self, run_id: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            _LOG.warning("MLflow no longer knows run %s; starting a new one", run_id)
            return None
        return run_id

    def _created(self, description: RunDescription) -> str:
        experiment_id = experiment_named(self._client, title(description.experiment))
        started_ms = _ms(description.started_unix_s)
        return self._client.create_run(experiment_id, started_ms, run_name=title(description.name)).info.run_id

    def _find_sent(self) -> dict[str, set[int]]:
        """Return what MLflow has: steps by metric."""
        names = self._client.get_run(self._run_id).data.metrics
        return {name: {point.step for point in self._client.get_metric_history(self._run_id, name)} for name in names}

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(metric_name(name), text(value, _MAX_TAG_CHARACTERS)) for name, value in tags.items()]
        self._each_if_refused(lambda some: self._client.log_batch(self._run_id, tags=some), values)

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        named = {metric_name(name): text(value, _MAX_PARAMETER_CHARACTERS) for name, value in parameters.items()}
        values = [Param(name, value) for name, value in named.items()]
        self._each_if_refused(lambda some: self._client.log_batch(self._run_id, params=some), values)

    def _log_datasets(self, datasets: Sequence[TrackedDataset]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = [InputTag("mlflow.data.context", "training")]
        inputs = [
            DatasetInput(
                Dataset(
                    name=text(dataset.name, _MAX_PARAMETER_CHARACTERS),
                    digest=dataset.digest[:_MAX_DIGEST_CHARACTERS],
                    source_type="s3" if dataset.source.startswith("s3://") else "local",
                    source=json.dumps({"uri": without_secrets(dataset.source)}),
                    profile=json.dumps(dict(dataset.facts)),
                ),
                context,
            )
            for dataset in datasets
        ]
        self._client.log_inputs(self._run_id, datasets=inputs)

    def has(self, name: str, images_seen: int) -> bool:
        """Return whether MLflow has a value of a metric at a position."""
        return images_seen in self._sent.get(metric_name(name), ())

    @_raising_tracking_errors
    def send(self, reports: Sequence[Report]) -> None:
        """Send numbers; one that MLflow refuses does not affect the others."""
        from mlflow.entities import Metric

        points = [
            Metric(metric_name(name), value, _ms(report.unix_s), report.images_seen)
            for report in reports
            for name, value in report.values.items()
        ]
        for start in range(0, len(points), _BATCH_LENGTH):
            self._each_if_refused(self._log_metrics, points[start : start + _BATCH_LENGTH])

    def _log_metrics(self, points: list[Metric]) -> None:
        self._client.log_batch(self._run_id, metrics=points)
        for point in points:
            self._sent.setdefault(point.key, set()).add(point.step)

    def _each_if_refused(self, log: Callable[[list[Any]], Any], values: list[Any]) -> None:
        from mlflow.exceptions import MlflowException, RestException

        try:
            log(values)
        except MlflowException as error:
            if not (error.error_code in _REFUSALS or isinstance(error, RestException)):
                raise
            for value in values:
                try:
                    log([value])
                except MlflowException as refusal:
                    if refusal.error_code not in _REFUSALS:
                        raise
                    self._warn(f"{value.key}: {first_line(refusal)}")

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning("MLflow does not accept a value (%s); metrics.jsonl has it", reason)

    @_raising_tracking_errors
    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Log a picture, unless MLflow has one of this name at this position."""
        key = picture_name(name)
        start = f"{key.replace('/', '~')}+step+{images_seen}+"  # how MLflow names its file
        if not any(known.startswith(start) for known in self._pictures):
            self._client.log_image(self._run_id, image, key=key, step=images_seen)

    @_raising_tracking_errors
    def file(self, path: Path) -> None:
        """Log a file as an artifact."""
        self._client.log_artifact(self._run_id, str(path))

    @_raising_tracking_errors
    def adopt(self, run_ids: Sequence[str]) -> None:
        """Show other runs nested under this one."""
        for run_id in run_ids:
            self._client.set_tag(run_id, "mlflow.parentRunId", self._run_id)

    @_raising_tracking_errors
    def end(self, status: str, unix_s: float | None = None) -> None:
        """End the run as FINISHED, KILLED or FAILED."""
        self._client.set_terminated(self._run_id, status, None if unix_s is None else _ms(unix_s))


def _check_store() -> None:
    import mlflow

    check_reachable(mlflow.get_tracking_uri())
    correct_paths(mlflow.get_tracking_uri())


def _ms(unix_s: float | None) -> int:
    from mlflow.utils.time import get_current_time_millis

    return get_current_time_millis() if unix_s is None else round(unix_s * _MS_PER_S)


TRACKERS.add(TrackerKind("mlflow", MlflowTracker))

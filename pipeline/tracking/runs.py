"""A run in MLflow, which can never stop training.

The run's own `metrics.jsonl` is the record; MLflow is a view of it. Calls go through a bounded queue and one thread of
rank 0, so training waits for no server. A server that cannot be reached costs one warning.

`MLFLOW_TRACKING_URI` says where; the default is the SQLite file `mlflow.db` in the working folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pipeline.errors import TrackingError
from pipeline.tracking.environment import check_reachable, first_line, prepare
from pipeline.tracking.moved import correct_paths, sqlite_file
from pipeline.tracking.names import metric_name, picture_name, text, title
from pipeline.tracking.source import source_tags
from shards.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Metric

_LOG = logging.getLogger(__name__)
_QUEUE_LENGTH = 1000
_CLOSE_TIMEOUT_S = 60.0
_UNREACHABLE_CLOSE_TIMEOUT_S = 5.0
_BATCH_LENGTH = 500
_MAX_PARAMETER_CHARACTERS = 500
_MAX_TAG_CHARACTERS = 5000
_MAX_DIGEST_CHARACTERS = 36
# Error codes that concern single values. Any other answer means that the server itself is faulty.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
# Opens the UI on training runs and their charts, not on traces of language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

Report: TypeAlias = tuple[int, Mapping[str, float]]
"""A line of `metrics.jsonl`: images seen, and values by name."""


@dataclass(frozen=True)
class TrackedDataset:
    """A dataset that a run trains on, as MLflow's UI lists it.

    Attributes:
        name: For people.
        digest: Of its manifest: names it down to the last byte.
        source: Folder or URL.
        facts: Counts and settings that the UI shows.
    """

    name: str
    digest: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Tracker:
    """One MLflow run, written from a thread; `NullTracker` has the same interface.

    Args:
        experiment: Name of the experiment; created if needed.
        run_name: Name of a new run.
        run_id: Run to resume, or None for a new one.
        parameters: Flat names to values, logged once.
        tags: Tags, logged on every call.
        record: Reports of earlier calls; those that MLflow does not have are sent.
        datasets: What the run trains on.
        creates: Create a run where MLflow does not know the one to resume.

    Raises:
        TrackingError: It does not know the run, and none may be created.
    """

    def __init__(
        self,
        experiment: str,
        run_name: str,
        run_id: str | None,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        record: Sequence[Report] = (),
        datasets: Sequence[TrackedDataset] = (),
        *,
        creates: bool = True,
    ) -> None:
        prepare()
        import mlflow

        store = sqlite_file(mlflow.get_tracking_uri())
        if not creates and store is not None and not store.exists():  # connecting would make an empty one
            raise TrackingError(f"no database {store}")
        check_reachable(mlflow.get_tracking_uri())
        correct_paths(mlflow.get_tracking_uri())
        self._client = mlflow.MlflowClient()
        texts = {metric_name(name): text(value, _MAX_TAG_CHARACTERS) for name, value in tags.items()}
        self.run_id: str | None = self._open_run(title(experiment), title(run_name), run_id, creates=creates)
        # Not known yet of a run that is resumed.
        self._sent: dict[str, set[int]] | None = None if run_id == self.run_id else {}
        self._queue: queue.Queue[Callable[[], Any] | None] = queue.Queue(_QUEUE_LENGTH)
        self._failures = 0
        self._is_unreachable = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self._submit(lambda: self._log_tags(texts))
        if datasets:
            self._submit(lambda: self._log_datasets(datasets))
        self._monitor: Any = None
        if run_id != self.run_id:
            values = {metric_name(name): text(value, _MAX_PARAMETER_CHARACTERS) for name, value in parameters.items()}
            self._submit(lambda: self._log_parameters(values))
        if record:
            self._submit(lambda: self._send(record))

    def _open_run(self, experiment: str, run_name: str, run_id: str | None, *, creates: bool) -> str:
        from mlflow.exceptions import MlflowException

        if run_id is not None:
            with contextlib.suppress(MlflowException):
                self._client.update_run(run_id, status="RUNNING")
                return run_id
            if not creates:
                raise TrackingError(f"MLflow does not know run {run_id}")
            _LOG.warning("MLflow no longer knows run %s; starting a new one", run_id)
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = (
            found.experiment_id if found else self._client.create_experiment(experiment, tags=_EXPERIMENT_TAGS)
        )
        return self._client.create_run(experiment_id, run_name=run_name).info.run_id

    def _find_sent(self) -> dict[str, set[int]]:
        """Return what an earlier call has sent, up to its kill: steps by metric."""
        run_id = self.run_id or ""
        names = self._client.get_run(run_id).data.metrics
        return {name: {point.step for point in self._client.get_metric_history(run_id, name)} for name in names}

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(name, value) for name, value in tags.items()]
        self._each_if_refused(lambda some: self._client.log_batch(self.run_id or "", tags=some), values)

    def _log_parameters(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        values = [Param(name, value) for name, value in parameters.items()]
        self._each_if_refused(lambda some: self._client.log_batch(self.run_id or "", params=some), values)

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
        self._client.log_inputs(self.run_id or "", datasets=inputs)

    def measure_system(self) -> None:
        """Log load and memory of the machine every ten seconds; a GPU's need nvidia-ml-py. Never blocks or raises."""
        self._submit(self._start_measuring)

    def _start_measuring(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=True)
        self._monitor.start()

    def _stop_measuring(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Log numbers at a position of the run. Never blocks, never raises."""
        self._submit(lambda: self._send([(images_seen, values)]))

    def _send(self, reports: Sequence[Report]) -> None:
        """Send what MLflow does not have; nothing while it does not say what it has, or points would be doubled."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        sent = self._sent = self._find_sent() if self._sent is None else self._sent
        now = get_current_time_millis()
        points = [
            Metric(metric_name(name), value, now, images_seen)
            for images_seen, values in reports
            for name, value in values.items()
            if images_seen not in sent.get(metric_name(name), ())
        ]
        for start in range(0, len(points), _BATCH_LENGTH):
            batch = points[start : start + _BATCH_LENGTH]
            self._each_if_refused(lambda some: self._log_metrics(some, sent), batch)

    def _log_metrics(self, points: list[Metric], sent: dict[str, set[int]]) -> None:
        self._client.log_batch(self.run_id or "", metrics=points)
        for point in points:
            sent.setdefault(point.key, set()).add(point.step)

    def _each_if_refused(self, log: Callable[[list[Any]], Any], values: list[Any]) -> None:
        """Log values together; one that MLflow refuses does not affect the others."""
        from mlflow.exceptions import MlflowException, RestException

        try:
            log(values)
        except MlflowException as error:
            is_refusal = error.error_code in _REFUSALS or isinstance(error, RestException)
            if not is_refusal or len(values) < 2:
                raise
            for value in values:
                try:
                    log([value])
                except MlflowException as refusal:
                    self._count_failure(f"{value.key}: {first_line(refusal)}")

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Log an (H, W, 3) uint8 picture; equal names at increasing positions form a slider. Never blocks or raises."""
        self._submit(lambda: self._client.log_image(self.run_id or "", image, key=picture_name(name), step=images_seen))

    def file(self, path: Path) -> None:
        """Log a file as an artifact. Never blocks, never raises."""
        self._submit(lambda: self._client.log_artifact(self.run_id or "", str(path)))

    def adopt(self, run_ids: Sequence[str]) -> None:
        """Show other runs nested under this one. Never blocks, never raises."""
        for run_id in run_ids:
            self._submit(lambda run_id=run_id: self._client.set_tag(run_id, "mlflow.parentRunId", self.run_id))

    def close(self, status: str) -> None:
        """End the run as FINISHED, KILLED or FAILED, waiting a bounded time for what is queued."""
        self._submit(self._stop_measuring)
        self._submit(lambda: self._client.set_terminated(self.run_id or "", status))
        timeout_s = _UNREACHABLE_CLOSE_TIMEOUT_S if self._is_unreachable else _CLOSE_TIMEOUT_S
        deadline_s = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _submit(self, call: Callable[[], Any]) -> None:
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._count_failure("its queue is full")

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
                self._is_unreachable = False
            except Exception as error:  # noqa: BLE001 - whatever a tracking server does, training continues
                self._is_unreachable = True
                self._count_failure(first_line(error))

    def _count_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            _LOG.warning("MLflow does not accept the metrics (%s); metrics.jsonl has them all", reason)


class NullTracker:
    """Tracks nothing: for ranks other than the leader, and where no server can be reached."""

    run_id: str | None = None

    def measure_system(self) -> None:
        """Do nothing."""

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Do nothing."""

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Do nothing."""

    def file(self, path: Path) -> None:
        """Do nothing."""

    def adopt(self, run_ids: Sequence[str]) -> None:
        """Do nothing."""

    def close(self, status: str) -> None:
        """Do nothing."""


def open_tracker(
    experiment: str,
    run_name: str,
    run_id: str | None,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    record: Sequence[Report] = (),
    datasets: Sequence[TrackedDataset] = (),
) -> Tracker | NullTracker:
    """Open the run in MLflow, or train without it, with one warning, if that fails; see `Tracker`.

    The run says who started it, with which command and code.
    """
    try:
        return Tracker(experiment, run_name, run_id, parameters, source_tags() | dict(tags), record, datasets)
    except Exception as error:  # noqa: BLE001 - whatever a tracking server does, training continues
        _LOG.warning("MLflow cannot be reached (%s); metrics.jsonl has everything", first_line(error))
        return NullTracker()


def open_existing(run_id: str) -> Tracker:
    """Open a run in MLflow to add to it; never creates one.

    Raises:
        TrackingError: MLflow cannot be reached, or does not know the run.
    """
    from mlflow.exceptions import MlflowException

    try:
        return Tracker("", "", run_id, {}, {}, creates=False)
    except (MlflowException, OSError, TrackingError) as error:
        raise TrackingError(f"{first_line(error)}; check MLFLOW_TRACKING_URI") from error

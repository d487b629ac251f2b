"""A run in MLflow, and nothing that can stop it.

The run's own `metrics.jsonl` is the truth; MLflow is a view of it. Calls go through a bounded queue and one thread of
rank 0, so training waits for no server. A server that cannot be reached costs one warning.

`MLFLOW_TRACKING_URI` says where; the default is the SQLite file `mlflow.db` in the working folder.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.tracking.environment import first_line, prepare

_LOG = logging.getLogger(__name__)
_QUEUE_LENGTH = 1000
_CLOSE_TIMEOUT_S = 60.0
_MAX_PARAMETER_CHARACTERS = 500
# Opens the UI on training runs and their charts, not on traces of language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Tracker:
    """One MLflow run, written from a thread; `NullTracker` has the same face.

    Args:
        experiment: Name of the experiment; made if need be.
        run_name: Name of a new run.
        run_id: Run to go on with, or None for a new one.
        parameters: Flat names to values, logged once.
        tags: Tags, logged once.
    """

    def __init__(
        self,
        experiment: str,
        run_name: str,
        run_id: str | None,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        prepare()
        import mlflow

        self._client = mlflow.MlflowClient()
        self.run_id: str | None = self._open_run(experiment, run_name, run_id, tags)
        self._queue: queue.Queue[Callable[[], Any] | None] = queue.Queue(_QUEUE_LENGTH)
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        if run_id is None:
            text = {name: str(value)[:_MAX_PARAMETER_CHARACTERS] for name, value in parameters.items()}
            self._submit(lambda: self._log_parameters(text))

    def _open_run(self, experiment: str, run_name: str, run_id: str | None, tags: Mapping[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        if run_id is not None:
            with contextlib.suppress(MlflowException):
                self._client.update_run(run_id, status="RUNNING")
                return run_id
            _LOG.warning("MLflow does not know run %s any more; starting a new one", run_id)
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = (
            found.experiment_id if found else self._client.create_experiment(experiment, tags=_EXPERIMENT_TAGS)
        )
        return self._client.create_run(experiment_id, run_name=run_name, tags=dict(tags)).info.run_id

    def _log_parameters(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.run_id or "", params=[Param(name, value) for name, value in parameters.items()])

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Log numbers at a position of the run. Never blocks, never raises."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        batch = [Metric(name, value, now, images_seen) for name, value in values.items()]
        self._submit(lambda: self._client.log_batch(self.run_id or "", metrics=batch))

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Log an (H, W, 3) uint8 picture; equal names at rising positions make a slider. Never blocks or raises."""
        self._submit(lambda: self._client.log_image(self.run_id or "", image, key=name, step=images_seen))

    def file(self, path: Path) -> None:
        """Log a file as an artifact. Never blocks, never raises."""
        self._submit(lambda: self._client.log_artifact(self.run_id or "", str(path)))

    def close(self, status: str) -> None:
        """End the run as FINISHED, KILLED or FAILED, waiting a bounded time for what is queued."""
        self._submit(lambda: self._client.set_terminated(self.run_id or "", status))
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _submit(self, call: Callable[[], Any]) -> None:
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._count_failure("its queue is full")

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever a tracking server does, training goes on
                self._count_failure(first_line(error))

    def _count_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            _LOG.warning("MLflow does not take the metrics (%s); metrics.jsonl has them all", reason)


class NullTracker:
    """Tracks nothing: for ranks other than the leader, and where no server can be reached."""

    run_id: str | None = None

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Do nothing."""

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Do nothing."""

    def file(self, path: Path) -> None:
        """Do nothing."""

    def close(self, status: str) -> None:
        """Do nothing."""


def open_tracker(
    experiment: str,
    run_name: str,
    run_id: str | None,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
) -> Tracker | NullTracker:
    """Open the run in MLflow, or go on without, with one warning, when that cannot be done."""
    try:
        return Tracker(experiment, run_name, run_id, parameters, tags)
    except Exception as error:  # noqa: BLE001 - whatever a tracking server does, training goes on
        _LOG.warning("MLflow cannot be reached (%s); metrics.jsonl has everything", first_line(error))
        return NullTracker()

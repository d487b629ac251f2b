"""A run in MLflow as a tracker: found or created, and brought up to date."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.tracking.description import Report, RunDescription, TrackedDataset
from pipeline.tracking.environment import check_addresses, first_line, prepare
from pipeline.tracking.mlflow_run import (
    REFUSALS,
    MlflowRun,
    check_store,
    experiment_named,
    known_run_id,
    raising_tracking_errors,
    remember_run_id,
)
from pipeline.tracking.names import metric_name, picture_name, text, title
from pipeline.tracking.tracker import TRACKERS, TrackerKind
from shards.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Metric

_LOG = logging.getLogger(__name__)
_BATCH_LENGTH = 500
_MAX_PARAMETER_CHARACTERS = 500
_MAX_TAG_CHARACTERS = 5000
_MAX_DIGEST_CHARACTERS = 36
_MS_PER_S = 1000
_PREVIEW = ".webp"


class MlflowTracker(MlflowRun):
    """A run in MLflow that is created where MLflow does not know it, and is not sent what MLflow has.

    Args:
        description: Of the run.
        folder: Where its ID is kept.
    """

    def __init__(self, description: RunDescription, folder: Path) -> None:
        super().__init__("")
        self._description = description
        self._folder = folder
        self._sent: dict[str, set[int]] = {}
        self._pictures: set[str] = set()
        self._has_warned = False

    @raising_tracking_errors
    def open(self) -> None:
        """Find the run, or create it, and read what MLflow has of it.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        prepare()
        check_store()
        known, description = known_run_id(self._folder), self._description
        self.run_id = self._resumed(known) or self._created(description)
        if self.run_id != known:
            remember_run_id(self._folder, self.run_id)
        data = self._client.get_run(self.run_id).data
        self._log_parameters(description.parameters, has=data.params)
        self._log_tags(description.tags)
        if description.datasets:
            self._log_datasets(description.datasets)
        self._sent = {name: self._find_sent(name) for name in data.metrics}
        self._pictures = {Path(item.path).name for item in self._client.list_artifacts(self.run_id, "images")}

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

    def _find_sent(self, metric: str) -> set[int]:
        return {point.step for point in self._client.get_metric_history(self.run_id, metric)}

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(metric_name(name), text(value, _MAX_TAG_CHARACTERS)) for name, value in tags.items()]
        self._each_if_refused(lambda some: self._client.log_batch(self.run_id, tags=some), values)

    def _log_parameters(self, parameters: Mapping[str, Any], has: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        named = {metric_name(name): text(value, _MAX_PARAMETER_CHARACTERS) for name, value in parameters.items()}
        values = [Param(name, value) for name, value in named.items() if name not in has]
        self._each_if_refused(lambda some: self._client.log_batch(self.run_id, params=some), values)

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
        self._client.log_inputs(self.run_id, datasets=inputs)

    def has(self, name: str, images_seen: int) -> bool:
        """Return whether MLflow has a value of a metric at a position."""
        return images_seen in self._sent.get(metric_name(name), ())

    @raising_tracking_errors
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
        self._client.log_batch(self.run_id, metrics=points)
        for point in points:
            self._sent.setdefault(point.key, set()).add(point.step)

    def _each_if_refused(self, log: Callable[[list[Any]], Any], values: list[Any]) -> None:
        from mlflow.exceptions import MlflowException, RestException

        try:
            log(values)
        except MlflowException as error:
            if not (error.error_code in REFUSALS or isinstance(error, RestException)):
                raise
            for value in values:
                try:
                    log([value])
                except MlflowException as refusal:
                    if refusal.error_code not in REFUSALS:
                        raise
                    self._warn(f"{value.key}: {first_line(refusal)}")

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning("MLflow does not accept a value (%s); metrics.jsonl has it", reason)

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Log a picture, unless MLflow has one of this name at this position.

        MLflow writes a picture before its preview, so that one without a preview is of a killed writer.
        """
        start = f"{picture_name(name).replace('/', '~')}+step+{images_seen}+"  # how MLflow names its file
        if not any(known.startswith(start) and known.endswith(_PREVIEW) for known in self._pictures):
            super().picture(name, image, images_seen)


def _ms(unix_s: float | None) -> int:
    return round(_MS_PER_S * (time.time() if unix_s is None else unix_s))


TRACKERS.add(TrackerKind("mlflow", MlflowTracker, check=check_addresses))

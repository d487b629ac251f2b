"""Validations of a run: what they measure, how each compares with the best one and with bicubic, and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.data.evaluation import read_pair, set_images
from pipeline.errors import ConfigError, saving
from pipeline.inference.evaluate import Evaluated, Ranks, against_bicubic, evaluate_image, result_names, validate
from pipeline.inference.pictures import side_by_side, write_png
from pipeline.metrics import Metric
from pipeline.metrics.choice import find_metric, missing_anywhere
from pipeline.metrics.criterion import Criterion, best_position, find_criterion
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers
from pipeline.train.report import MetricsFile
from shards.errors import InputError
from shards.format.files import fit_name


@dataclass(frozen=True)
class ValidationMetrics:
    """What a run's validations measure.

    Attributes:
        chosen: Metrics that can be computed, by the names in `report.metrics`.
        not_computed: The others, with what each needs.
        criterion: What `report.keep_best` names; None where it is empty.
    """

    chosen: Mapping[str, Metric]
    not_computed: Mapping[str, str]
    criterion: Criterion | None

    @property
    def notes(self) -> list[str]:
        """A line for each metric that cannot be computed."""
        return [f"validation: {name} is not computed: needs {needs}" for name, needs in self.not_computed.items()]


def find_validation_metrics(
    config: TrainConfig, any_rank_of_each: Callable[[list[bool]], list[bool]] = lambda flags: flags
) -> ValidationMetrics:
    """Return what a run's validations measure.

    Args:
        config: The run's configuration.
        any_rank_of_each: Whether each flag is true on any rank.

    Raises:
        InputError: A metric is unknown, none can be computed, or `report.keep_best` is none of them.
    """
    try:
        metrics = {name: find_metric(name) for name in config.report.metrics}
    except InputError as error:
        raise ConfigError(f"report.metrics: {error}") from error
    needs = {name: metric.missing() for name, metric in metrics.items()}
    not_computed = missing_anywhere(needs, any_rank_of_each)
    chosen = {name: metric for name, metric in metrics.items() if name not in not_computed}
    found = ValidationMetrics(chosen, not_computed, None)
    best, sets = config.report.keep_best, [folder.name for folder in config.report.validation_sets]
    if sets and not chosen:
        raise ConfigError("\n  ".join(["report.metrics leaves nothing to compute; add psnr_y", *found.notes]))
    if not best:
        return found
    criterion = find_criterion(best, sets, metrics)
    if criterion.metric not in chosen.values():
        raise ConfigError("\n  ".join([f"report.keep_best={best!r} cannot be computed", *found.notes]))
    return ValidationMetrics(chosen, not_computed, criterion)


class Validation:
    """Validates, on all ranks together, and ranks the validations of the run so far.

    Args:
        config: The run's configuration.
        metrics: What to measure.
        record: The run's metrics file.
        backend: Ranks and devices.
    """

    def __init__(self, config: TrainConfig, metrics: ValidationMetrics, record: MetricsFile, backend: Backend) -> None:
        self._config = config
        self._metrics = metrics
        self._criterion = metrics.criterion
        self._record = record
        self._backend = backend
        self.shown: Evaluated | None = None
        """The first photo of the last validation that this rank measured."""

    def run(
        self, generator: nn.Module, images_seen: int, tracker: Trackers, must_stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Measure a generator in evaluation mode. All ranks must call.

        Returns:
            `SET/METRIC` to its mean; None if interrupted.
        """
        backend = self._backend
        self.shown = None

        def keep(name: str, evaluated: Sequence[Evaluated]) -> None:
            self.shown = self.shown or evaluated[0]
            self._picture(name, evaluated, images_seen, tracker)

        def total(values: np.ndarray) -> np.ndarray:
            return backend.sum(torch.from_numpy(values)).numpy()

        return validate(
            generator,
            self._config.report.validation_sets,
            self._config.generator.scale,
            tuple(self._metrics.chosen.values()),
            ranks=Ranks(backend.rank, backend.world_size, total),
            keep=keep,
            must_leave=lambda: backend.any_rank(must_stop()),
        )

    def show_start(self, generator: nn.Module, tracker: Trackers) -> None:
        """Show the first image of each set before the first step; the sliders of the trackers begin there."""
        if not self._backend.is_leader:
            return
        scale, metrics = self._config.generator.scale, tuple(self._metrics.chosen.values())
        for folder in self._config.report.validation_sets:
            first, *_ = set_images(folder, scale)
            self._picture(folder.name, evaluate_image([generator], read_pair(first, scale, metrics), scale), 0, tracker)

    def _picture(self, name: str, evaluated: Sequence[Evaluated], images_seen: int, tracker: Trackers) -> None:
        picture, image = side_by_side(evaluated), evaluated[0].pair.name
        path = RunFolder(self._config.run_dir).pictures / fit_name(f"{name}_{image}.png")
        with saving(path):
            write_png(path, picture, job="train_sed")
        tracker.picture(f"{name}/{image}", path, images_seen)

    def is_recorded(self, images_seen: int) -> bool:
        """Return whether the metrics file has the validation at a position."""
        names = result_names(tuple(self._metrics.chosen.values()))
        return any(images_seen in self._record.validations(name) for name in names)

    def scores(self) -> dict[int, float]:
        """Return the score of each validation by position, higher is better; empty without `report.keep_best`."""
        return {} if self._criterion is None else self._criterion.scores(self._record.validations(self._criterion.name))

    def is_exhausted(self, images_seen: int) -> bool:
        """Return whether the run ends here, at a validation, for want of improvement. All ranks must call.

        Follows from the metrics file alone, so that a resumed run ends where an undisturbed one does.
        """
        patience = self._config.schedule.stop_after_no_improvement_images
        if not patience:
            return False
        is_enough = self._backend.is_leader and images_seen - self._waiting_since() >= patience
        return self._backend.any_rank(is_enough and images_seen in self.scores())

    def _waiting_since(self) -> int:
        start = self._config.schedule.pixel_only_images if self._config.is_adversarial else 0
        return max(best_position(self.scores()) or 0, start)

    def lines(self, images_seen: int, values: Mapping[str, float]) -> list[str]:
        """Return what a validation shows at the terminal: its numbers, and how it compares with the best before it."""
        metrics = tuple(self._metrics.chosen.values())
        of_sets = [
            f"{folder.name}: {', '.join(against_bicubic(metric, _of_set(values, folder.name)) for metric in metrics)}"
            for folder in self._config.report.validation_sets
        ]
        return of_sets if self._criterion is None else [*of_sets, *self._comparison(self._criterion, images_seen)]

    def _comparison(self, criterion: Criterion, images_seen: int) -> list[str]:
        values, scores = self._record.validations(criterion.name), self.scores()
        here = values.get(images_seen)
        best = best_position({position: score for position, score in scores.items() if position < images_seen})
        shown = criterion.metric.text
        if here is None or best is None:
            return []
        if best_position(scores) == images_seen:
            return [f"{criterion.name} {shown(here)}: the best so far, before it {shown(values[best])} at {best:,}"]
        patience = self._config.schedule.stop_after_no_improvement_images
        ends = f"; ends at {self._waiting_since() + patience:,} without a better one" if patience else ""
        return [f"{criterion.name} {shown(here)}: the best is {shown(values[best])} at {best:,}{ends}"]


def _of_set(values: Mapping[str, float], name: str) -> dict[str, float | None]:
    return {key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")}

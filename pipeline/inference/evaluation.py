"""Models that a user names, opened and evaluated on sets.

In several processes, started by accelerate or torchrun, each evaluates its share of the images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.config.running import RuntimeConfig
from pipeline.data.evaluation import EvaluationPair, passed_over_in_sets, read_pair, set_images
from pipeline.data.layouts import SetImage
from pipeline.inference.evaluate import Evaluated, Ranks, measure_set
from pipeline.inference.evaluation_report import EvaluatedModel, EvaluationReport
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.metrics import Metric
from pipeline.metrics.choice import choose_metrics
from pipeline.progress import Progress, say
from pipeline.runtime.backend import Backend
from pipeline.runtime.launch import launched_world_size
from shards.errors import InputError
from shards.format.files import sha256_of

_RUNTIME = RuntimeConfig(
    precision="float32", channels_last=False, compile=False, discriminator_pass="separate", deterministic=False
)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated.

    Attributes:
        models: The opened models, in the order of the report's.
        sets: Evaluation sets.
        report: Without results before `measure`.
        backend: Ranks and devices.
    """

    models: Sequence[NamedModel]
    sets: Sequence[Path]
    report: EvaluationReport
    backend: Backend

    def measure(self, keep: Callable[[str, list[Evaluated]], None]) -> None:
        """Measure every image, and fill the report. Each image is read once, by one rank. All ranks must call.

        Args:
            keep: Called with the set's name and each image that this rank evaluated, by each model.

        Raises:
            RankLostError: Another process died or hangs.
        """
        if self.backend.is_leader:
            self._introduce()
        with self.backend.naming_lost_ranks():
            self._measure(keep)
            self.backend.close()

    def _introduce(self) -> None:
        if others := passed_over_in_sets(self.sets):
            say(others)
        for line in [*self.backend.notes, *(f"generator: {model.weights}" for model in self.models)]:
            say(line)

    def _measure(self, keep: Callable[[str, list[Evaluated]], None]) -> None:
        backend, report = self.backend, self.report

        def total(values: np.ndarray) -> np.ndarray:
            return backend.sum(torch.from_numpy(values)).numpy()

        generators = [model.generator.to(backend.device) for model in self.models]
        num_images = sum(len(set_images(folder, report.scale)) for folder in self.sets)
        bar = Progress("evaluating", num_images, "images") if backend.is_leader else None
        with bar or contextlib.nullcontext():
            for folder in self.sets:
                results = measure_set(
                    generators,
                    folder,
                    report.scale,
                    report.metrics,
                    ranks=Ranks(backend.rank, backend.world_size, total),
                    read=_read_usable,
                    keep=keep,
                    # So that no rank waits for another at the end for longer than an image takes.
                    meet=backend.barrier,
                    advance=lambda count: None if bar is None else bar.advance(count),
                )
                report.sets[folder.name] = results
                if backend.is_leader:
                    report.faults += [_fault_of(image, report.scale, report.metrics) for image in results.unusable]


def open_evaluation(names: Mapping[str, str], sets: Sequence[Path], metrics: Sequence[str]) -> Evaluation:
    """Open models, and choose the metrics that can be computed here. All ranks must call.

    Args:
        names: Models as users name them, by label; see `label_models`.
        sets: Checked evaluation sets.
        metrics: Names of metrics.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: Models are of different scales, or of different weights on some rank, or a metric is unknown, or
            none can be computed.
    """
    backend = Backend(_RUNTIME, batch_size=launched_world_size())
    chosen, not_computed = choose_metrics(metrics, backend.any_rank_of_each)
    models = [open_model(name, unfinished=True) for name in names.values()]
    scale = _common_scale(names, models)
    report = EvaluationReport(_reported(names, models, backend), scale, chosen, not_computed)
    return Evaluation(models, sets, report, backend)


def _reported(names: Mapping[str, str], models: Sequence[NamedModel], backend: Backend) -> list[EvaluatedModel]:
    """Return the models by name and hash, which must be the same on all ranks: a run that trains on has new ones."""
    hashes = [sha256_of(model.weights) for model in models]
    numbers = torch.tensor([int(digest[:8], 16) for digest in hashes], dtype=torch.float64)
    is_different = backend.any_rank_of_each((backend.mean(numbers) != numbers).tolist())
    if different := [name for name, is_it in zip(names.values(), is_different, strict=True) if is_it]:
        raise InputError(
            f"{', '.join(different)}: other weights on some rank; is it still training, or another file on another "
            "machine? Name an exported file that all machines have"
        )
    return [EvaluatedModel(name, label, digest) for (label, name), digest in zip(names.items(), hashes, strict=True)]


def _common_scale(names: Mapping[str, str], models: Sequence[NamedModel]) -> int:
    scales = {name: model.scale for name, model in zip(names.values(), models, strict=True)}
    if len(set(scales.values())) > 1:
        listed = "\n  ".join(f"{name}: x{scale}" for name, scale in scales.items())
        raise InputError(f"models of different scales cannot be compared; evaluate each scale by itself:\n  {listed}")
    return models[0].scale


def _read_usable(image: SetImage, scale: int, metrics: Sequence[Metric]) -> EvaluationPair | None:
    try:
        return read_pair(image, scale, metrics)
    except InputError:
        return None


def _fault_of(image: SetImage, scale: int, metrics: Sequence[Metric]) -> str:
    """Read an image that could not be used again, and return why."""
    try:
        read_pair(image, scale, metrics)
    except InputError as error:
        return str(error)
    return f"{image.hr} could not be used by another process; is it the same file on every machine?"

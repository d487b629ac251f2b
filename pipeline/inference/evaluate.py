"""Metrics of generators on evaluation sets, next to those of bicubic upscaling, the baseline.

`pipeline.metrics` has the metrics and their protocols; the border they ignore is `scale` px. The images of a set may be
split over ranks: each is evaluated once, and every rank gets the numbers that one process computes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.data.evaluation import EvaluationPair, read_pair, set_images
from pipeline.data.layouts import SetImage
from pipeline.inference.upscale import upscale
from pipeline.metrics import METRICS, Metric
from pipeline.metrics.order import mean, only_finite
from shards.degradation import bicubic
from shards.format.rejects import NOTE_TEXTS

DEFAULT_METRICS: tuple[Metric, ...] = (METRICS["psnr_y"], METRICS["ssim_y"])


def result_names(metrics: Sequence[Metric] = DEFAULT_METRICS) -> tuple[str, ...]:
    """Names of the results of one image: of the generator by each metric, then of bicubic upscaling."""
    return (*(metric.name for metric in metrics), *(f"bicubic_{metric.name}" for metric in metrics))


def against_bicubic(metric: Metric, means: Mapping[str, float | None]) -> str:
    """Return a mean beside that of bicubic upscaling: `PSNR-Y 31.25 dB (bicubic 28.42)`."""
    baseline = means.get(f"bicubic_{metric.name}")
    shown = "none" if baseline is None else f"{baseline:.{metric.decimals}f}"
    return f"{metric.label} {metric.text(means.get(metric.name))} (bicubic {shown})"


def protocol_of(metrics: Sequence[Metric]) -> str:
    """What the metrics compare, each distinct protocol once."""
    return "; ".join(dict.fromkeys(metric.protocol for metric in metrics))


@dataclass(frozen=True)
class Evaluated:
    """One image by one generator: its pictures, (H, W, 3) uint8, and its results by `result_names`."""

    pair: EvaluationPair
    sr: np.ndarray
    bicubic: np.ndarray
    metrics: dict[str, float]


def evaluate_image(
    generators: Sequence[nn.Module], pair: EvaluationPair, scale: int, metrics: Sequence[Metric] = DEFAULT_METRICS
) -> list[Evaluated]:
    """Upscale one image by each generator and, once, by bicubic, and compare all with the ground truth."""
    enlarged = bicubic.upscale(pair.lq, scale)
    baseline = [metric(enlarged, pair.gt, scale) for metric in metrics]
    evaluated = []
    for generator in generators:
        sr = upscale(generator, pair.lq, scale)
        values = [*(metric(sr, pair.gt, scale) for metric in metrics), *baseline]
        evaluated.append(Evaluated(pair, sr, enlarged, dict(zip(result_names(metrics), values, strict=True))))
    return evaluated


@dataclass(frozen=True)
class Ranks:
    """How the images of a set are split over processes.

    Attributes:
        rank: This process.
        world_size: Number of processes.
        total: Sum of an array over all of them; collective.
    """

    rank: int = 0
    world_size: int = 1
    total: Callable[[np.ndarray], np.ndarray] = np.copy


ALONE = Ranks()


@dataclass(frozen=True)
class SetResults:
    """The results of some generators on a set.

    Attributes:
        images: Names of the images that could be used, in the order of the set.
        unusable: The other images.
        notes: How many images were not measured as they are in their files, by what was lost or assumed.
        values: By generator, image and result.
        names: Of the results; see `result_names`.
    """

    images: list[str]
    unusable: list[SetImage]
    notes: dict[str, int]
    values: np.ndarray
    names: tuple[str, ...]

    def of(self, result: str, generator: int = 0) -> list[float]:
        """Return one result of a generator, image by image."""
        return self.values[generator, :, self.names.index(result)].tolist()


def _nothing(*_: object) -> None:
    return None


def measure_set(
    generators: Sequence[nn.Module],
    folder: Path,
    scale: int,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    ranks: Ranks = ALONE,
    read: Callable[[SetImage, int, Sequence[Metric]], EvaluationPair | None] = read_pair,
    keep: Callable[[str, list[Evaluated]], None] = _nothing,
    meet: Callable[[], None] = _nothing,
    advance: Callable[[int], None] = _nothing,
) -> SetResults:
    """Evaluate a set with the work split over ranks. All ranks must call.

    Args:
        generators: Networks in evaluation mode, all of one scale.
        folder: Evaluation set.
        scale: Enlargement.
        metrics: What to compute.
        ranks: Who computes.
        read: Reads an image; None where it cannot be used.
        keep: Called with the set's name and each image that this rank evaluated, by each generator.
        meet: Called on all ranks equally often, before each image; may raise to stop early.
        advance: Called after each round of one image per rank with the number of images.

    Returns:
        The results of all images, on every rank.

    Raises:
        InputError: The folder is no evaluation set, or an image cannot be used.
    """
    images, names = set_images(folder, scale), result_names(metrics)
    is_used, notes = np.zeros((len(images), 1)), np.zeros((len(images), len(NOTE_TEXTS)))
    values = np.zeros((len(images), len(generators), len(names)))
    for first in range(0, len(images), ranks.world_size):
        meet()
        for index in range(first, len(images))[ranks.rank : ranks.rank + 1]:
            pair = read(images[index], scale, metrics)
            if pair is not None:
                evaluated = evaluate_image(generators, pair, scale, metrics)
                values[index] = [[one.metrics[name] for name in names] for one in evaluated]
                is_used[index], notes[index] = 1, [note in pair.notes for note in NOTE_TEXTS]
                keep(folder.name, evaluated)
        advance(min(ranks.world_size, len(images) - first))
    totals = ranks.total(np.column_stack([is_used, notes, values.reshape(len(images), -1)]))
    used, num_notes = totals[:, 0] > 0, totals[:, 1 : 1 + len(NOTE_TEXTS)].sum(axis=0)
    return SetResults(
        [image.name for image, usable in zip(images, used, strict=True) if usable],
        [image for image, usable in zip(images, used, strict=True) if not usable],
        {note: int(count) for note, count in zip(NOTE_TEXTS, num_notes, strict=True) if count},
        totals[used, 1 + len(NOTE_TEXTS) :].reshape(-1, *values.shape[1:]).swapaxes(0, 1),
        names,
    )


class _LeftError(Exception):
    pass


def validate(
    generator: nn.Module,
    folders: Sequence[Path],
    scale: int,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    ranks: Ranks = ALONE,
    keep: Callable[[str, list[Evaluated]], None],
    must_leave: Callable[[], bool],
) -> dict[str, float] | None:
    """Evaluate several sets with the work split over ranks; see `measure_set`. All ranks must call.

    Args:
        generator: Network in evaluation mode.
        folders: Evaluation sets.
        scale: Enlargement.
        metrics: What to compute.
        ranks: Who computes.
        keep: Called with the set's name and each image that this rank evaluated, in a list of one.
        must_leave: Whether to stop early, the same on all ranks; called before each image.

    Returns:
        `SET/METRIC` to its mean over the set by the rule of `pipeline.metrics.order`, on every rank; None when it
            left.
    """

    def meet() -> None:
        if must_leave():
            raise _LeftError

    means: dict[str, float | None] = {}
    try:
        for folder in folders:
            results = measure_set([generator], folder, scale, metrics, ranks=ranks, keep=keep, meet=meet)
            means |= {f"{folder.name}/{name}": mean(results.of(name)) for name in results.names}
    except _LeftError:
        return None
    return only_finite(means)

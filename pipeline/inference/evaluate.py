"""Metrics of a generator on evaluation sets, beside those of bicubic upscaling, the baseline to beat.

`pipeline.metrics` has the metrics and their protocols; the border they ignore is `scale` px.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.data.evaluation import EvaluationPair, read_pair, set_images
from pipeline.inference.upscale import upscale
from pipeline.metrics import METRICS, Metric
from shards.degradation import bicubic
from shards.errors import InputError

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
    """One image: its pictures, (H, W, 3) uint8, and its results by `result_names`."""

    pair: EvaluationPair
    sr: np.ndarray
    bicubic: np.ndarray
    metrics: dict[str, float]


def evaluate_image(
    generator: nn.Module, pair: EvaluationPair, scale: int, metrics: Sequence[Metric] = DEFAULT_METRICS
) -> Evaluated:
    """Upscale one image by the generator and by bicubic, and compare both with the ground truth."""
    sr, enlarged = upscale(generator, pair.lq, scale), bicubic.upscale(pair.lq, scale)
    values = [metric(picture, pair.gt, scale) for picture in (sr, enlarged) for metric in metrics]
    return Evaluated(pair, sr, enlarged, dict(zip(result_names(metrics), values, strict=True)))


def evaluate_folder(
    generator: nn.Module,
    folder: Path,
    scale: int,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    skip: Callable[[InputError], None] | None = None,
) -> Iterator[Evaluated]:
    """Evaluate a set, image by image, in the order of names.

    Args:
        generator: Network in evaluation mode.
        folder: Evaluation set.
        scale: The generator's.
        metrics: What to compute.
        skip: Called with what is wrong with an image that cannot be used, which is then skipped.

    Raises:
        InputError: The folder is no evaluation set; or, without `skip`, an image cannot be used.
    """
    for image in set_images(folder, scale):
        try:
            pair = read_pair(image, scale)
        except InputError as error:
            if skip is None:
                raise
            skip(error)
        else:
            yield evaluate_image(generator, pair, scale, metrics)


def evaluate_sets(
    generator: nn.Module,
    folders: Sequence[Path],
    scale: int,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    skip: Callable[[InputError], None] | None = None,
) -> Iterator[tuple[str, Evaluated]]:
    """Evaluate several sets; yields each image with the name of its set. See `evaluate_folder`."""
    for folder in folders:
        for evaluated in evaluate_folder(generator, folder, scale, metrics, skip=skip):
            yield folder.name, evaluated


def validate(
    generator: nn.Module,
    folders: Sequence[Path],
    scale: int,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    rank: int,
    world_size: int,
    total: Callable[[np.ndarray], np.ndarray],
    keep: Callable[[str, Evaluated], None],
    must_leave: Callable[[], bool],
) -> dict[str, float] | None:
    """Evaluate several sets with the work split over ranks; each image counts once. All ranks must call.

    Args:
        generator: Network in evaluation mode.
        folders: Evaluation sets.
        scale: Enlargement.
        metrics: What to compute.
        rank: This process.
        world_size: Number of processes.
        total: Sum of an array over all ranks.
        keep: Called with the set's name and each image that this rank evaluated.
        must_leave: Whether to stop early, the same on all ranks; called before each image.

    Returns:
        `SET/METRIC` to its mean over the set by the rule of `pipeline.metrics.order`, on every rank; None when it
            left.
    """
    names = result_names(metrics)
    means: dict[str, float] = {}
    for folder in folders:
        images = set_images(folder, scale)
        sums, counts = np.zeros(len(names)), np.zeros(len(names))
        # Rounds of one image per rank: every rank checks equally often, even one with no image left.
        for first in range(0, len(images), world_size):
            if must_leave():
                return None
            for image in images[first + rank : first + rank + 1]:
                evaluated = evaluate_image(generator, read_pair(image, scale), scale, metrics)
                values = np.array([evaluated.metrics[name] for name in names])
                sums += np.where(np.isfinite(values), values, 0.0)
                counts += np.isfinite(values)
                keep(folder.name, evaluated)
        all_sums, all_counts = total(np.stack([sums, counts]))
        for name, value, count in zip(names, all_sums, all_counts, strict=True):
            if count:
                means[f"{folder.name}/{name}"] = float(value / count)
    return means

"""Numbers of a generator on evaluation sets, by the protocol of the field's tables.

PSNR and SSIM on the Y of BT.601 of the rounded 8-bit image, with a border of `scale` px left out; beside them the
same numbers of bicubic enlargement, so that nobody has to look up what was to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.data.evaluation import EvaluationPair, evaluation_files, read_pair
from pipeline.inference.upscale import upscale
from pipeline.metrics import psnr_y, ssim_y
from shards.degradation import bicubic

METRICS: tuple[str, ...] = ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y")
PROTOCOL = "BT.601 Y of the rounded 8-bit image, border = scale"


@dataclass(frozen=True)
class Evaluated:
    """One image: its pictures, (H, W, 3) uint8, and its numbers by the names in `METRICS`."""

    pair: EvaluationPair
    sr: np.ndarray
    bicubic: np.ndarray
    metrics: dict[str, float]


def evaluate_image(generator: nn.Module, pair: EvaluationPair, scale: int) -> Evaluated:
    """Enlarge one image and compare it, and bicubic's, with the truth."""
    sr = upscale(generator, pair.lq, scale)
    enlarged = bicubic.upscale(pair.lq, scale)
    values = (
        psnr_y(sr, pair.gt, scale),
        ssim_y(sr, pair.gt, scale),
        psnr_y(enlarged, pair.gt, scale),
        ssim_y(enlarged, pair.gt, scale),
    )
    return Evaluated(pair, sr, enlarged, dict(zip(METRICS, map(float, values), strict=True)))


def evaluate_folder(generator: nn.Module, folder: Path, scale: int) -> Iterator[Evaluated]:
    """Evaluate a set, image by image, in the order of names.

    Raises:
        InputError: The folder is no evaluation set.
    """
    for hr_file in evaluation_files(folder):
        yield evaluate_image(generator, read_pair(hr_file, scale), scale)


def validate(
    generator: nn.Module,
    folders: Sequence[Path],
    scale: int,
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
        rank: This process.
        world_size: Number of processes.
        total: Sum of an array over all ranks.
        keep: Called with the set's name and each image that this rank evaluated.
        must_leave: Whether to leave before the end, the same answer on all ranks; asked before each image.

    Returns:
        `SET/METRIC` to its mean over the set, on every rank; None when it left.
    """
    means: dict[str, float] = {}
    for folder in folders:
        files = evaluation_files(folder)
        sums = np.zeros(len(METRICS))
        # Rounds of an image a rank: every rank asks as often, also the one for whom no image is left.
        for first in range(0, len(files), world_size):
            if must_leave():
                return None
            for hr_file in files[first + rank : first + rank + 1]:
                evaluated = evaluate_image(generator, read_pair(hr_file, scale), scale)
                sums += [evaluated.metrics[name] for name in METRICS]
                keep(folder.name, evaluated)
        for name, value in zip(METRICS, total(sums) / len(files), strict=True):
            means[f"{folder.name}/{name}"] = float(value)
    return means

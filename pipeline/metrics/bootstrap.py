"""Bootstrap intervals of means over images: how far a mean may move if the set had held other images of its kind.

Non-finite values follow `pipeline.metrics.order`: intervals are of the finite values. Draws depend only on the seed and
on the number of images, so that two results over one set share their resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

CONFIDENCE = 0.95
SEED = 0
RESAMPLES = 10_000
_VALUES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over images and the percentile interval of its resamples.

    Attributes:
        mean: Of the finite values.
        low: Lower end; the mean itself for a single image, about which nothing is known.
        high: Upper end.
        num_images: Finite values.
    """

    mean: float
    low: float
    high: float
    num_images: int


def have_an_order(means: Sequence[Interval | None]) -> bool:
    """Return whether the means of several models on one set are of equally many images.

    Else one is without images where its model is perfect, or has no value, and the largest need not be the best.
    """
    return len({0 if mean is None else mean.num_images for mean in means}) == 1


def mean_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = SEED, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the mean with its percentile bootstrap interval; None without a finite value.

    Args:
        values: One per image.
        confidence: Fraction of resamples inside the interval.
        seed: Of the resampling.
        resamples: Number of them.

    References:
        Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    finite = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not finite.size:
        return None
    means = np.concatenate([finite[drawn].mean(axis=1) for drawn in _draws(finite.size, seed, resamples)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(finite.mean()), float(low), float(high), finite.size)


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the interval of the mean difference `ours - theirs` over the images where both are finite.

    Args:
        ours: One value per image.
        theirs: Of the same images, in the same order.
        confidence: Fraction of resamples inside the interval.
        resamples: Number of them.

    Raises:
        ValueError: The numbers of values differ.
    """
    pairs = zip(ours, theirs, strict=True)
    differences = [our - their if math.isfinite(our) and math.isfinite(their) else math.nan for our, their in pairs]
    return mean_interval(differences, confidence=confidence, resamples=resamples)


def _draws(num_images: int, seed: int, resamples: int) -> Iterator[Int64[ndarray, "some images"]]:
    """Yield the indices of all resamples, a bounded number of values at once."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _VALUES_AT_ONCE // num_images)
    for first in range(0, resamples, rows):
        yield random.integers(num_images, size=(min(rows, resamples - first), num_images))

"""Gaussian and Poisson noise, each value of which is a function of (seed, stream, pixel).

An image gets the same noise alone, in any batch and padded to any size. Poisson counts come from an exact
inverse distribution function in integers, so they are the same on every device.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.1; `random_add_gaussian_noise_pt` and
    `random_add_poisson_noise_pt` of BasicSR (`basicsr/data/degradations.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.degrade.counter_random import pixel_words
from pipeline.degrade.step_batch import Application, Rows, StepBatch
from shards.degradation.operations.noise import Noise

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)
_WORD_VALUES = 2.0**32
_NUM_LEVELS = 256
_NUM_EXPONENTS = 9
_MAX_COUNT = 420
_SUPPORT_BITS = 32


def gaussian_noise(
    image: Float[Tensor, "n 3 s s"],
    sigma_255: Float[Tensor, " n"],
    is_gray: Bool[Tensor, " n"],
    seed: Int[Tensor, "n 4"],
    stream: int,
) -> Float[Tensor, "n 3 s s"]:
    """Add Gaussian noise and clip.

    Args:
        image: RGB in [0, 1].
        sigma_255: Standard deviation in gray levels.
        is_gray: Whether the channels share one field.
        seed: Words in [0, 2**32).
        stream: Separates this field from those of other steps.

    Returns:
        In [0, 1].
    """
    w0, w1, w2, w3 = pixel_words(seed, stream, image.shape[-1])
    first, second = _box_muller(w0, w1, image.dtype)
    third, _ = _box_muller(w2, w3, image.dtype)
    gray = is_gray.view(-1, 1, 1, 1)
    field = torch.cat([first, torch.where(gray, first, second), torch.where(gray, first, third)], dim=1)
    return (image + field * (sigma_255.to(image.dtype) / 255).view(-1, 1, 1, 1)).clamp(0, 1)


def _box_muller(radius_word: Tensor, angle_word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two standard normal fields from two fields of words."""
    radius = torch.sqrt(-2 * torch.log((radius_word.to(dtype) + 0.5) / _WORD_VALUES))
    angle = angle_word.to(dtype) * (2 * math.pi / _WORD_VALUES)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def poisson_noise(
    image: Float[Tensor, "n 3 s s"],
    scale: Float[Tensor, " n"],
    is_gray: Bool[Tensor, " n"],
    seed: Int[Tensor, "n 4"],
    stream: int,
    size_px: Int[Tensor, " n"],
) -> Float[Tensor, "n 3 s s"]:
    """Add Poisson noise and clip.

    As in the reference, the mean of the counts is the image (or its gray version), rounded to 8 bits, times the
    smallest power of two not below its number of distinct values; their deviation from the mean is scaled.

    Args:
        image: RGB in [0, 1].
        scale: Multiplies the deviation.
        is_gray: Whether the channels share the noise of the gray version.
        seed: Words in [0, 2**32).
        stream: Separates this field from those of other steps.
        size_px: Side of each image; only values within it are counted.

    Returns:
        In [0, 1].
    """
    gray = is_gray.view(-1, 1, 1, 1)
    luma = sum(weight * image[:, k : k + 1] for k, weight in enumerate(_GRAY_WEIGHTS))
    base = torch.where(gray, luma, image)
    level = (base * 255).round().clamp(0, 255).long()
    exponent = _support_exponent(level, size_px).view(-1, 1, 1, 1)
    w0, w1, w2, _ = pixel_words(seed, stream, image.shape[-1])
    word = torch.cat([w0, torch.where(gray, w0, w1), torch.where(gray, w0, w2)], dim=1)
    count = _poisson_count(word, exponent * _NUM_LEVELS + level)
    deviation = torch.ldexp(count.to(image.dtype), -exponent) - level.to(image.dtype) / 255
    return (image + deviation * scale.to(image.dtype).view(-1, 1, 1, 1)).clamp(0, 1)


def _support_exponent(level: Tensor, size_px: Tensor) -> Tensor:
    """ceil(log2(number of distinct levels)) of each image, without synchronising with the device."""
    axis = torch.arange(level.shape[-1], device=level.device)
    inside = axis.view(1, 1, -1) < size_px.view(-1, 1, 1)
    inside = (inside.unsqueeze(-1) & inside.unsqueeze(-2)).expand_as(level)
    marks = torch.where(inside, level, _NUM_LEVELS).flatten(1)
    present = torch.zeros(level.shape[0], _NUM_LEVELS + 1, dtype=torch.int64, device=level.device)
    distinct = present.scatter_(1, marks, 1)[:, :_NUM_LEVELS].sum(dim=1, keepdim=True)
    powers = 1 << torch.arange(_NUM_EXPONENTS - 1, device=level.device)
    return (distinct > powers).sum(dim=1)


def _poisson_count(word: Tensor, row: Tensor) -> Tensor:
    """Quantile of the Poisson distribution of a row of the table, at (word + 1/2) / 2**32."""
    thresholds, start, offset = _poisson_table(word.device)
    place = torch.searchsorted(thresholds, (row << _SUPPORT_BITS) | word, right=True)
    return place - start[row] + offset[row]


@functools.lru_cache(maxsize=8)
def _poisson_table(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """One sorted list of the thresholds of all distributions, with the row's number in the high bits.

    Row `exponent * 256 + level` has mean `level / 255 * 2**exponent`. Counts whose distribution function rounds to
    0 or to 1 in 32 bits have no threshold; `offset` is the number of the former.
    """
    level = np.arange(_NUM_LEVELS) / 255
    mean = (2.0 ** np.arange(_NUM_EXPONENTS)[:, None] * level).reshape(-1, 1)
    count = np.arange(_MAX_COUNT)
    log_factorial = np.cumsum(np.log(np.maximum(count, 1)))
    log_mean = np.log(np.where(mean > 0, mean, 1))
    mass = np.where(mean > 0, np.exp(count * log_mean - mean - log_factorial), count == 0)
    reached = np.minimum(np.rint(np.cumsum(mass, axis=1) * _WORD_VALUES), _WORD_VALUES).astype(np.int64)
    kept = (reached > 0) & (reached < int(_WORD_VALUES))
    rows = np.arange(len(mean), dtype=np.int64)[:, None] << _SUPPORT_BITS
    start = np.concatenate([[0], np.cumsum(kept.sum(axis=1))[:-1]])
    tables = ((rows + reached)[kept], start, (reached == 0).sum(axis=1))
    thresholds, first, offset = (torch.from_numpy(np.ascontiguousarray(table)).to(device) for table in tables)
    return thresholds, first, offset


@dataclass(frozen=True)
class NoiseBatch(StepBatch):
    """Noise: the rows of each kind, and `strength` and `is_gray` of all images."""

    gaussian: Rows
    poisson: Rows
    strength: Float[Tensor, " n"]
    is_gray: Bool[Tensor, " n"]
    stream: int

    def select(self, samples: list[int]) -> NoiseBatch:
        """The noise of some images."""
        gaussian, poisson = self.gaussian.select(samples)[0], self.poisson.select(samples)[0]
        return NoiseBatch(gaussian, poisson, self.strength[samples], self.is_gray[samples], self.stream)

    def apply(self, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise to the images that have any."""

        def gaussian(part: Tensor) -> Tensor:
            index = self.gaussian.index
            return gaussian_noise(part, self.strength[index], self.is_gray[index], seed[index], self.stream)

        def poisson(part: Tensor) -> Tensor:
            index = self.poisson.index
            strength, is_gray = self.strength[index], self.is_gray[index]
            return poisson_noise(part, strength, is_gray, seed[index], self.stream, size_px[index])

        return self.poisson.apply(self.gaussian.apply(image, gaussian), poisson), size_px


def _stack(steps: Sequence[Noise], _: Sequence[int]) -> NoiseBatch:
    return NoiseBatch(
        Rows.where([step.kind == "gaussian" for step in steps]),
        Rows.where([step.kind == "poisson" for step in steps]),
        torch.tensor([step.strength for step in steps], dtype=torch.float64),
        torch.tensor([step.is_gray for step in steps]),
        steps[0].stream,
    )


NOISE = Application("noise", _stack)

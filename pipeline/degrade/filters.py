"""Filtering of ragged batches: blur with a kernel a sample, and the unsharp mask.

Borders are mirrored without repeating the edge pixel, at each sample's own border.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from shards.degradation.recipe import SharpenRecipe


def mirrored_index(size_px: Tensor, margin_px: int, length_px: int) -> Tensor:
    """Where each pixel of a mirrored border comes from.

    Args:
        size_px: (N,) int64, each sample's side.
        margin_px: Border before the image.
        length_px: Of the result, border included.

    Returns:
        (N, length_px) int64, from 0 to size - 1.
    """
    period = (2 * size_px - 2).clamp(min=1).view(-1, 1)
    position = torch.arange(length_px, device=size_px.device).view(1, -1) - margin_px
    folded = torch.remainder(position, period)
    return torch.minimum(folded, period - folded).minimum(size_px.view(-1, 1) - 1)


def take(image: Tensor, index: Tensor) -> Tensor:
    """Gather rows and columns of (N, C, S, S) by one index (N, T) for both; returns (N, C, T, T)."""
    num, channels, side_px, _ = image.shape
    length = index.shape[1]
    rows = image.gather(2, index.view(num, 1, length, 1).expand(num, channels, length, side_px))
    return rows.gather(3, index.view(num, 1, 1, length).expand(num, channels, length, length))


def blur(image: Tensor, kernels: Tensor, size_px: Tensor) -> Tensor:
    """Filter each sample with its own kernel, by FFT.

    Args:
        image: (N, C, S, S).
        kernels: (N, K, K), K odd, point-symmetric.
        size_px: (N,) int64, each sample's own side; what lies beyond it is not read, and not meaningful after.

    Returns:
        (N, C, S, S), not clipped.
    """
    side_px, reach_px = image.shape[-1], kernels.shape[-1] - 1
    fft_px = _fast_length(side_px + reach_px)
    padded = take(image, mirrored_index(size_px, reach_px // 2, fft_px))
    response = torch.fft.rfft2(kernels.to(image.dtype).unsqueeze(1), s=(fft_px, fft_px))
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded) * response, s=(fft_px, fft_px))
    return filtered[:, :, reach_px : reach_px + side_px, reach_px : reach_px + side_px]


def _fast_length(at_least: int) -> int:
    """The next even length whose only prime factors are 2, 3 and 5."""
    length = at_least + at_least % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(length: int) -> bool:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length == 1


def sharpen(image: Tensor, recipe: SharpenRecipe) -> Tensor:
    """Unsharp mask with a soft threshold.

    Args:
        image: (N, C, H, W) in [0, 1].
        recipe: Radius, weight and threshold.

    Returns:
        The same shape, in [0, 1] where it was sharpened.

    References:
        Wang et al. 2021, Real-ESRGAN, section 3.5 and supplement.
    """
    detail = image - _gaussian(image, recipe.radius_px)
    mask = _gaussian((detail.abs() * 255 > recipe.threshold_255).to(image.dtype), recipe.radius_px)
    sharp = (image + recipe.weight * detail).clamp(0, 1)
    return image + mask * (sharp - image)


def _gaussian(image: Tensor, radius_px: int) -> Tensor:
    """Gaussian blur of both axes, as banded matrix products."""
    across = _smooth_last(image, radius_px)
    return _smooth_last(across.transpose(2, 3), radius_px).transpose(2, 3)


_BLOCK_PX = 96


def _smooth_last(image: Tensor, radius_px: int) -> Tensor:
    """Smooth the last axis block by block: a block reads only its neighbourhood, which spares most of the zeros."""
    matrix = _smoothing_matrix(image.shape[-1], radius_px, image.dtype, image.device)
    half_px, size_px = _window_px(radius_px) // 2, image.shape[-1]
    parts = []
    for start in range(0, size_px, _BLOCK_PX):
        stop = min(start + _BLOCK_PX, size_px)
        low, high = max(start - half_px, 0), min(stop + half_px, size_px)
        parts.append(image[..., low:high] @ matrix[start:stop, low:high].T)
    return torch.cat(parts, dim=-1)


def _window_px(radius_px: int) -> int:
    return radius_px + 1 - radius_px % 2


@functools.lru_cache(maxsize=16)
def _smoothing_matrix(size_px: int, radius_px: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(size, size): row i holds the weights of output i, the mirrored border folded in."""
    window_px = _window_px(radius_px)
    half_px = window_px // 2
    # OpenCV's rule for a Gaussian given by its window alone.
    sigma_px = 0.3 * ((window_px - 1) * 0.5 - 1) + 0.8
    weights = [math.exp(-(offset**2) / (2 * sigma_px**2)) for offset in range(-half_px, half_px + 1)]
    index = mirrored_index(torch.tensor([size_px]), half_px, size_px + 2 * half_px)[0]
    matrix = torch.zeros(size_px, size_px, dtype=torch.float64)
    rows = torch.arange(size_px)
    for offset, weight in enumerate(weights):
        matrix[rows, index[offset : offset + size_px]] += weight / sum(weights)
    return matrix.to(device, dtype)

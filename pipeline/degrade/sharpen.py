"""Unsharp mask with a soft threshold, of images that fill their canvas.

References:
    `USMSharp` of BasicSR (`basicsr/utils/img_process_util.py`), which Real-ESRGAN sharpens its targets with;
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, on sharpened ground truth.
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.degrade.borders import mirrored_index
from shards.degradation.recipe import SharpenRecipe


def sharpen(image: Float[Tensor, "n c s s"], recipe: SharpenRecipe) -> Float[Tensor, "n c s s"]:
    """Sharpen a batch.

    Args:
        image: In [0, 1].
        recipe: Window, weight and threshold.

    Returns:
        In [0, 1]. Detail below the threshold is unchanged, and the mask's edge is blurred like the image, so that no
        seam shows.
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
    """Smooth the last axis block by block: the matrix is banded, so a block multiplies few of its zeros."""
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
    """(size, size): row i holds the weights of output i, with the mirrored border folded in."""
    window_px = _window_px(radius_px)
    half_px = window_px // 2
    # OpenCV's getGaussianKernel with sigma = 0, which the reference calls: sigma 8 for a window of 51 px.
    sigma_px = 0.3 * ((window_px - 1) * 0.5 - 1) + 0.8
    weights = [math.exp(-(offset**2) / (2 * sigma_px**2)) for offset in range(-half_px, half_px + 1)]
    index = mirrored_index(torch.tensor([size_px]), half_px, size_px + 2 * half_px)[0]
    matrix = torch.zeros(size_px, size_px, dtype=torch.float64)
    rows = torch.arange(size_px)
    for offset, weight in enumerate(weights):
        matrix[rows, index[offset : offset + size_px]] += weight / sum(weights)
    return matrix.to(device, dtype)

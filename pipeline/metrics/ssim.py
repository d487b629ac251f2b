"""Structural similarity as the authors' MATLAB code computes it: 11x11 Gaussian window, valid region only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.colour import checked_pair, to_y
from shards.errors import InputError

_WINDOW_PX = 11
_SIGMA_PX = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def ssim_y(sr: NDArray[np.uint8], gt: NDArray[np.uint8], border_px: int) -> float:
    """SSIM on luma.

    Args:
        sr: (H, W, 3) uint8 RGB, the rounded result.
        gt: (H, W, 3) uint8 RGB, the truth.
        border_px: Ignored on each side; the papers take the scale.

    Returns:
        At most 1, which equal images have.

    Raises:
        InputError: What is left is smaller than the window.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    sr, gt = checked_pair(sr, gt, border_px)
    if min(sr.shape[:2]) < _WINDOW_PX:
        raise InputError(f"SSIM needs {_WINDOW_PX} px a side after the border; got {sr.shape[0]}x{sr.shape[1]} px")
    x, y = to_y(sr), to_y(gt)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return float(similarity.mean())


def _window_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian-weighted mean of each full window; the window is a product, so rows and columns go in turn."""
    offsets = np.arange(_WINDOW_PX) - _WINDOW_PX // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    weights /= weights.sum()
    height_px, width_px = (side - _WINDOW_PX + 1 for side in image.shape)
    rows = sum(weight * image[k : k + height_px] for k, weight in enumerate(weights))
    columns = np.asarray(rows)
    return np.asarray(sum(weight * columns[:, k : k + width_px] for k, weight in enumerate(weights)))

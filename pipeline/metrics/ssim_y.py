"""Structural similarity on luma, as its authors' MATLAB code computes it: 11x11 Gaussian window, valid region only."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y

_WINDOW_PX = 11
_SIGMA_PX = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def _ssim_y(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    """SSIM, at most 1, which equal images have.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity, equation 13.
    """
    x, y = to_y(cut_border(sr, border_px)), to_y(cut_border(gt, border_px))
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similarity /= (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return float(similarity.mean())


def _window_mean(image: Float64[ndarray, "h w"]) -> Float64[ndarray, "h2 w2"]:
    """Gaussian-weighted mean of each full window."""
    offsets = np.arange(_WINDOW_PX) - _WINDOW_PX // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    weights /= weights.sum()
    height_px, width_px = (side - _WINDOW_PX + 1 for side in image.shape)
    # The window is separable: rows first, then columns.
    rows = np.asarray(sum(weight * image[k : k + height_px] for k, weight in enumerate(weights)))
    return np.asarray(sum(weight * rows[:, k : k + width_px] for k, weight in enumerate(weights)))


SSIM_Y = Metric(
    name="ssim_y",
    label="SSIM-Y",
    measure=_ssim_y,
    protocol="BT.601 Y of the rounded 8-bit image, border = scale",
    is_higher_better=True,
    smallest_side_px=_WINDOW_PX,
)

"""Structural similarity on luma, as its authors' MATLAB code computes it: 11x11 Gaussian window, valid region only."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y
from pipeline.metrics.ssim import C1, C2, WINDOW_PX, window_mean


def _ssim_y(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    """SSIM, at most 1, the value of equal images.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity, equation 13.
    """
    x, y = to_y(cut_border(sr, border_px)), to_y(cut_border(gt, border_px))
    mean_x, mean_y = window_mean(x), window_mean(y)
    variance_x = window_mean(x * x) - mean_x**2
    variance_y = window_mean(y * y) - mean_y**2
    covariance = window_mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similarity /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return float(similarity.mean())


SSIM_Y = Metric(
    name="ssim_y",
    label="SSIM-Y",
    measure=_ssim_y,
    protocol="BT.601 Y of the rounded 8-bit image, border = scale",
    is_higher_better=True,
    smallest_side_px=WINDOW_PX,
)

"""Peak signal-to-noise ratio of 8-bit images, in dB."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.colour import checked_pair, to_y


def psnr_y(sr: NDArray[np.uint8], gt: NDArray[np.uint8], border_px: int) -> float:
    """PSNR on luma.

    Args:
        sr: (H, W, 3) uint8 RGB, the rounded result.
        gt: (H, W, 3) uint8 RGB, the truth.
        border_px: Ignored on each side; the papers take the scale.

    Returns:
        Decibels with peak 255; infinite for equal images.
    """
    sr, gt = checked_pair(sr, gt, border_px)
    return _psnr(to_y(sr) - to_y(gt))


def psnr_rgb(sr: NDArray[np.uint8], gt: NDArray[np.uint8], border_px: int) -> float:
    """PSNR on the three channels together; arguments and result as `psnr_y`."""
    sr, gt = checked_pair(sr, gt, border_px)
    return _psnr(sr.astype(np.float64) - gt)


def _psnr(difference: NDArray[np.float64]) -> float:
    mean_square = float(np.mean(np.square(difference)))
    return math.inf if mean_square == 0 else 10 * math.log10(255.0**2 / mean_square)

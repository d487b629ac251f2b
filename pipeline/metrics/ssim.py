"""What `ssim_y` and `ms_ssim` share: the constants and the 11x11 Gaussian window, valid region only.

Own code, since `ms_ssim` needs the window on its own; piq's SSIM agrees to 2e-15.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

WINDOW_PX = 11
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
_SIGMA_PX = 1.5


def window_mean(image: Float64[ndarray, "h w"]) -> Float64[ndarray, "h2 w2"]:
    """Gaussian-weighted mean of each full window."""
    offsets = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    weights /= weights.sum()
    height_px, width_px = (side - WINDOW_PX + 1 for side in image.shape)
    # The window is separable: rows first, then columns.
    rows = np.asarray(sum(weight * image[k : k + height_px] for k, weight in enumerate(weights)))
    return np.asarray(sum(weight * rows[:, k : k + width_px] for k, weight in enumerate(weights)))

"""Peak signal-to-noise ratio of 8-bit values, in dB; `psnr_y` and `psnr_rgb` choose the values."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64
from numpy import ndarray


def psnr(difference: Float64[ndarray, "*values"]) -> float:
    """PSNR with a peak of 255 in dB, infinite where there is no difference."""
    mean_square = float(np.mean(np.square(difference)))
    return math.inf if mean_square == 0 else 10 * math.log10(255.0**2 / mean_square)

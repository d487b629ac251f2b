"""Photos made worse by a known amount, for tests of metrics."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(image.astype(float), (sigma_px, sigma_px, 0))).astype(np.uint8)


def noisy(image: np.ndarray, sigma_255: float) -> np.ndarray:
    noise = np.random.RandomState(1).standard_normal(image.shape) * sigma_255
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)

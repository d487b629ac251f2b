"""Perceptual hash of a photo: the same, but for a few bits, after resizing, re-encoding or a change of brightness.

The photo is averaged to 64x64 px; of its discrete cosine transform the 16 x 16 lowest frequencies after the constants
are compared with their median (pHash: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010,
with 256 bits in place of 64, so that unrelated photos of a large dataset do not meet). The cosines are whole numbers:
every machine computes the same bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from PIL import Image

_SIDE_PX = 64
_NUM_FREQUENCIES = 16
_COSINE_BITS = 14


def _cosines() -> Int64[np.ndarray, "frequencies px"]:
    frequencies = np.arange(1, _NUM_FREQUENCIES + 1)[:, None]
    phases = (2 * np.arange(_SIDE_PX) + 1) * np.pi / (2 * _SIDE_PX)
    return np.rint(np.cos(frequencies * phases) * 2**_COSINE_BITS).astype(np.int64)


_COSINES = _cosines()


def perceptual_hash(luma: Image.Image) -> str:
    """Return the hash of an 8-bit gray image (mode L): 64 hex digits."""
    small = np.asarray(luma.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX), np.int64)
    frequencies = (_COSINES @ small @ _COSINES.T).ravel()
    median = np.sort(frequencies)[len(frequencies) // 2 - 1]
    return np.packbits(frequencies > median).tobytes().hex()

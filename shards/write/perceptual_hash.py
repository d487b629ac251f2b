"""Perceptual hash of a photo: the same, but for a few bits, after resizing, re-encoding or a change of brightness.

The photo is averaged to 64x64 px; of its discrete cosine transform the 16 x 16 lowest frequencies after the constants
are compared with their median (pHash: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010,
with 256 bits in place of 64, so that unrelated photos of a large dataset do not meet). The cosines are whole numbers:
every machine computes the same bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt64
from PIL import Image

from shards.format.curation import HASH_BITS

_SIDE_PX = 64
_NUM_FREQUENCIES = 16
_NUM_WORDS = HASH_BITS // 64
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


class HashIndex:
    """Hashes to find the nearest of; compares with all of them.

    Args:
        capacity: Hashes that will be added at most.
    """

    def __init__(self, capacity: int) -> None:
        # One array per word: each is read from end to end.
        self._words = np.empty((_NUM_WORDS, capacity), np.uint64)
        self._size = 0

    def add(self, hexadecimal: str) -> None:
        """Add a hash; it gets the next number, from 0."""
        self._words[:, self._size] = _words(hexadecimal)
        self._size += 1

    def distances(self, hexadecimal: str) -> np.ndarray:
        """Return in how many bits each hash differs from one."""
        total = np.zeros(self._size, np.uint16)
        for held, word in zip(self._words, _words(hexadecimal), strict=True):
            total += np.bitwise_count(held[: self._size] ^ word)
        return total


def _words(hexadecimal: str) -> UInt64[np.ndarray, " words"]:
    return np.frombuffer(bytes.fromhex(hexadecimal), ">u8").astype(np.uint64)

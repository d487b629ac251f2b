"""How the numbers of a payload become bytes: as they are, or bit-shuffled and compressed.

Bit-shuffling lays the first bits of all numbers side by side, then the second bits, and so on: those of sparse or small
values are long runs, which zstd then shortens. Both are one call of the Blosc library.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, Protocol

import numpy as np

# Level 1 is a few percent larger than 5 and takes a third of the time; decoding costs the same.
_LEVEL = 1
# Blosc stores what does not shrink as it is, behind a header of 16 bytes: four, the size, four, the compressed size.
_MAX_OVERHEAD_BYTES = 16
_SIZES = struct.Struct("<4xI4xI")


class Body(Protocol):
    """One way from an array to bytes and back."""

    def to_bytes(self, numbers: np.ndarray) -> bytes:
        """Return the bytes of an array, row by row, however it lies in memory."""
        ...

    def from_bytes(self, payload: memoryview, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """Return the flat array of `count` numbers.

        Raises:
            ValueError: The payload has another size; the text continues "the feature ...".
        """
        ...

    def max_bytes(self, num_bytes: int) -> int:
        """Return a size that the bytes of an array of `num_bytes` do not exceed."""
        ...


class Plain:
    """The array's own bytes."""

    def to_bytes(self, numbers: np.ndarray) -> bytes:
        """See `Body`."""
        return numbers.tobytes()

    def from_bytes(self, payload: memoryview, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """See `Body`."""
        expected = count * dtype.itemsize
        if len(payload) != expected:
            raise ValueError(f"has {len(payload)} bytes, not the {expected} of its shape")
        return np.frombuffer(payload, dtype)

    def max_bytes(self, num_bytes: int) -> int:
        """See `Body`."""
        return num_bytes


class BitshuffledZstd:
    """Bit-shuffled by the size of a number, then zstd: a buffer of Blosc 1."""

    def to_bytes(self, numbers: np.ndarray) -> bytes:
        """See `Body`."""
        blosc = _blosc()
        return blosc.Blosc("zstd", _LEVEL, blosc.BITSHUFFLE).encode(np.ascontiguousarray(numbers))

    def from_bytes(self, payload: memoryview, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """See `Body`."""
        blosc, expected = _blosc(), count * dtype.itemsize
        if len(payload) < _MAX_OVERHEAD_BYTES:
            raise ValueError(f"has {len(payload)} bytes, fewer than a compressed one")
        num_bytes, num_compressed = _SIZES.unpack_from(payload)
        # The library believes both, and reads and writes as far as they say.
        if num_bytes != expected or num_compressed != len(payload):
            raise ValueError(
                f"has {len(payload)} bytes, which claim to be {num_compressed} of {num_bytes}; its shape has {expected}"
            )
        numbers = np.empty(count, dtype)
        try:
            blosc.decompress(payload, numbers)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"does not decompress: {error}") from error
        return numbers

    def max_bytes(self, num_bytes: int) -> int:
        """See `Body`."""
        return num_bytes + _MAX_OVERHEAD_BYTES


@functools.cache
def _blosc() -> Any:
    from numcodecs import blosc  # on first use; its module has no types  # pyright: ignore[reportAttributeAccessIssue]

    # Workers are processes already, and its threads do not survive a fork.
    blosc.use_threads = False
    return blosc


PLAIN: Body = Plain()
BITSHUFFLED_ZSTD: Body = BitshuffledZstd()

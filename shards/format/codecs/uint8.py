"""One byte for each value, with a scale for each channel of each feature.

The values of a channel are `(number - zero) * step`. The zero point is a whole number, so zeros, of which maps behind a
ReLU are full, stay exactly zero; no value moves by more than half a step, which is 1/508 of the channel's range.
"""

from __future__ import annotations

import math

import numpy as np

from shards.format.codecs.body import BITSHUFFLED_ZSTD, PLAIN, Body
from shards.format.codecs.codec import CODECS, Coding, FeatureCodec, Shape

_STEP, _NUMBER = np.dtype("<f4"), np.dtype("u1")
# One fewer than the numbers have: rounding the zero point may shift the range by half a step.
_NUM_STEPS = 254
_MAX_STEP = 1e30


class Uint8Coding(Coding):
    """Payload: a float32 step for each channel, a byte of zero point for each channel, then the numbers."""

    def __init__(self, shape: Shape, body: Body) -> None:
        self._shape = shape
        self._body = body
        self._zeros_at = _STEP.itemsize * shape[0]
        self._numbers_at = self._zeros_at + shape[0]

    def encode(self, feature: np.ndarray) -> bytes:
        """See `Coding`."""
        values = feature.reshape(self._shape[0], -1).astype(np.float32)
        low, high = (np.minimum(values.min(1), 0), np.maximum(values.max(1), 0))
        steps = (high - low) / np.float32(_NUM_STEPS)
        divisors = np.where(steps > 0, steps, 1)  # a channel of zeros has no range
        zeros = np.rint(-low / divisors)
        numbers = np.clip(np.rint(values / divisors[:, None]) + zeros[:, None], 0, 255).astype(_NUMBER)
        return steps.astype(_STEP).tobytes() + zeros.astype(_NUMBER).tobytes() + self._body.to_bytes(numbers)

    def decode(self, payload: bytes) -> np.ndarray:
        """See `Coding`."""
        if len(payload) <= self._numbers_at:
            raise ValueError(f"has {len(payload)} bytes, fewer than the scales of its channels")
        view = memoryview(payload)
        steps = np.frombuffer(view[: self._zeros_at], _STEP)
        zeros = np.frombuffer(view[self._zeros_at : self._numbers_at], _NUMBER)
        if not (np.abs(steps) < _MAX_STEP).all():
            raise ValueError("has a scale that is not finite")
        numbers = self._body.from_bytes(view[self._numbers_at :], _NUMBER, math.prod(self._shape))
        values = np.subtract(numbers.reshape(len(steps), -1), zeros[:, None], dtype=np.float32)
        values *= steps[:, None]
        return values.reshape(self._shape)


class Uint8Codec(FeatureCodec):
    """One byte for each value and five for each channel, before compression."""

    dtype = "uint8"
    quantisation = "step and zero per channel"

    def __init__(self, name: str, body: Body) -> None:
        self.name = name
        self._body = body

    def bind(self, shape: Shape, state: bytes = b"") -> Coding:
        """See `FeatureCodec`."""
        return Uint8Coding(shape, self._body)

    def max_bytes(self, shape: Shape) -> int:
        """See `FeatureCodec`."""
        return (_STEP.itemsize + 1) * shape[0] + self._body.max_bytes(math.prod(shape))


CODECS.add(Uint8Codec("uint8", PLAIN))
CODECS.add(Uint8Codec("uint8-zstd", BITSHUFFLED_ZSTD))

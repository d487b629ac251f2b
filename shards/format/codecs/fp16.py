"""Values as float16: what every cache had before it could name a codec."""

from __future__ import annotations

import math

import numpy as np

from shards.format.codecs.body import BITSHUFFLED_ZSTD, PLAIN, Body
from shards.format.codecs.codec import CODECS, Coding, FeatureCodec, Shape

_FLOAT16 = np.dtype("<f2")


class Float16Coding(Coding):
    """Rounds to the nearest float16; exact for features that are float16 already."""

    def __init__(self, shape: Shape, body: Body) -> None:
        self._shape = shape
        self._body = body

    def encode(self, feature: np.ndarray) -> bytes:
        """See `Coding`."""
        return self._body.to_bytes(np.ascontiguousarray(feature, _FLOAT16))

    def decode(self, payload: bytes) -> np.ndarray:
        """See `Coding`."""
        numbers = self._body.from_bytes(memoryview(payload), _FLOAT16, math.prod(self._shape))
        return numbers.reshape(self._shape)


class Float16Codec(FeatureCodec):
    """Two bytes for each value, before compression."""

    dtype = "float16"
    quantisation = "none"

    def __init__(self, name: str, body: Body) -> None:
        self.name = name
        self._body = body

    @property
    def suffix(self) -> str:
        """`f16` without compression, as in caches of all versions."""
        return "f16" if self._body is PLAIN else self.name

    def bind(self, shape: Shape, state: bytes = b"") -> Coding:
        """See `FeatureCodec`."""
        return Float16Coding(shape, self._body)

    def max_bytes(self, shape: Shape) -> int:
        """See `FeatureCodec`."""
        return self._body.max_bytes(_FLOAT16.itemsize * math.prod(shape))


CODECS.add(Float16Codec("fp16", PLAIN))
CODECS.add(Float16Codec("fp16-zstd", BITSHUFFLED_ZSTD))

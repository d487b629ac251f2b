"""What a codec of cached features is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, TypeAlias

import numpy as np

from shards.registry import Registry

Shape: TypeAlias = tuple[int, int, int]
"""(c, h, w) of one feature."""


class Coding(ABC):
    """A codec for features of one shape, with what it learned from the data, if it learns anything."""

    @abstractmethod
    def encode(self, feature: np.ndarray) -> bytes:
        """Return the payload of one feature: the same bytes for the same values, in any process.

        Args:
            feature: (c, h, w), float16 or float32, finite.
        """

    @abstractmethod
    def decode(self, payload: bytes) -> np.ndarray:
        """Return the feature of a payload, which may come from anywhere.

        Returns:
            (c, h, w), little-endian float16 or float32.

        Raises:
            ValueError: It is no payload of this shape; the text continues "the feature ...".
        """


class FeatureCodec(ABC):
    """One way to store a feature.

    Attributes:
        name: What headers and flags call it. Names are part of the data format: what a name means never changes.
        dtype: Of the stored numbers.
        quantisation: What they mean; `none` where they are the values.
        suffix: Extension of a member, after its variant.
        is_fitted: Whether it learns from a sample of the data, and keeps what it learned beside the tars.
    """

    name: str
    dtype: ClassVar[str]
    quantisation: ClassVar[str]
    is_fitted: ClassVar[bool] = False

    @property
    def suffix(self) -> str:
        """The codec's name, unless the format of old caches says otherwise."""
        return self.name

    def fit(self, sample: Iterable[np.ndarray]) -> bytes:
        """Return what the codec learns from features (c, h, w); nothing unless `is_fitted`."""
        return b""

    def state_bytes(self, shape: Shape) -> int:
        """Return the size of what `fit` returns."""
        return 0

    @abstractmethod
    def bind(self, shape: Shape, state: bytes = b"") -> Coding:
        """Return the codec for features of a shape.

        Args:
            shape: Of every feature.
            state: From `fit`.

        Raises:
            ValueError: The state is none of this codec and shape.
        """

    @abstractmethod
    def max_bytes(self, shape: Shape) -> int:
        """Return a size that no payload exceeds."""


_HERE = "shards.format.codecs"
CODECS: Registry[FeatureCodec] = Registry(
    "feature codec",
    modules={
        "fp16": f"{_HERE}.fp16",
        "fp16-zstd": f"{_HERE}.fp16",
        "uint8": f"{_HERE}.uint8",
        "uint8-zstd": f"{_HERE}.uint8",
        "pca64": f"{_HERE}.low_rank",
        "pca128": f"{_HERE}.low_rank",
    },
)

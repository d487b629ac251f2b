"""The first principal components of the layer's channels, on a sample of the data, as bytes.

Nothing is trained: the components are the eigenvectors of the channels' covariance over the cells of the sample. What
lies outside of them is lost, without a bound on the error of a value.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shards.format.codecs.body import BITSHUFFLED_ZSTD
from shards.format.codecs.codec import CODECS, Coding, FeatureCodec, Shape
from shards.format.codecs.uint8 import Uint8Codec

_STATE = np.dtype("<f4")
_COEFFICIENTS = Uint8Codec("uint8-zstd of the coefficients", BITSHUFFLED_ZSTD)


class LowRankCoding(Coding):
    """Payload: the coefficients of every cell, coded as `uint8-zstd` codes the channels of a feature."""

    def __init__(self, shape: Shape, mean: np.ndarray, basis: np.ndarray) -> None:
        self._shape = shape
        self._mean = mean[:, None]
        self._basis = basis
        self._coefficients = _COEFFICIENTS.bind((len(basis), *shape[1:]))

    def encode(self, feature: np.ndarray) -> bytes:
        """See `Coding`."""
        # In float64, so that the bytes do not depend on the order in which a library adds.
        centred = feature.reshape(self._shape[0], -1).astype(np.float64) - self._mean
        return self._coefficients.encode(self._basis.astype(np.float64) @ centred)

    def decode(self, payload: bytes) -> np.ndarray:
        """See `Coding`."""
        coefficients = self._coefficients.decode(payload).reshape(len(self._basis), -1)
        values = self._basis.T @ coefficients
        values += self._mean
        return values.reshape(self._shape)


class LowRankCodec(FeatureCodec):
    """One byte for each component and cell, before compression.

    Args:
        name: See `FeatureCodec`.
        rank: Number of components; as many as there are channels, if that is less.
    """

    dtype = "uint8"
    quantisation = "principal components, step and zero per component"
    is_fitted = True

    def __init__(self, name: str, rank: int) -> None:
        self.name = name
        self._rank = rank

    def fit(self, sample: Iterable[np.ndarray]) -> bytes:
        """Return mean (c) and components (rank, c), the largest first, as little-endian float32."""
        num_cells, total, squares = 0, np.float64(0), np.float64(0)
        for feature in sample:
            cells = feature.reshape(len(feature), -1).astype(np.float64)
            num_cells += cells.shape[1]
            total = total + cells.sum(1)
            squares = squares + cells @ cells.T
        mean = total / num_cells
        _, vectors = np.linalg.eigh(squares / num_cells - np.outer(mean, mean))
        basis = vectors[:, ::-1].T[: self._rank]
        # An eigenvector's sign is free: its largest entry is positive.
        largest = np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None], 1)
        return np.vstack([mean, basis * np.sign(largest)]).astype(_STATE).tobytes()

    def state_bytes(self, shape: Shape) -> int:
        """See `FeatureCodec`."""
        return _STATE.itemsize * shape[0] * (1 + self._rank_of(shape))

    def bind(self, shape: Shape, state: bytes = b"") -> Coding:
        """See `FeatureCodec`."""
        if len(state) != self.state_bytes(shape):
            raise ValueError(f"has {len(state)} bytes of components, not the {self.state_bytes(shape)} of its shape")
        rows = np.frombuffer(state, _STATE).reshape(-1, shape[0])
        if not np.isfinite(rows).all():
            raise ValueError("has components that are not finite")
        return LowRankCoding(shape, rows[0], rows[1:])

    def max_bytes(self, shape: Shape) -> int:
        """See `FeatureCodec`."""
        return _COEFFICIENTS.max_bytes((self._rank_of(shape), *shape[1:]))

    def _rank_of(self, shape: Shape) -> int:
        return min(self._rank, shape[0])


CODECS.add(LowRankCodec("pca64", 64))
CODECS.add(LowRankCodec("pca128", 128))

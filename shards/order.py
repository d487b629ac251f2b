"""The order in which training reads: for each epoch a keyed permutation, computed, never stored.

Guarantees: an epoch holds each index exactly once; the order is a function of (number of samples, seed,
epoch) alone, so it does not depend on processes, workers or restarts; any stretch of it costs time and memory
in proportion to its length: 1,000 indices of 10^9 samples take about a millisecond. NumPy's random streams
are not used.

References:
    Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains: a Feistel network with cycle walking.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import InputError

_NUM_ROUNDS = 8
_MIN_HALF_BITS = 3
_MAX_SAMPLES = 2**60


@dataclass(frozen=True)
class SampleOrder:
    """An endless sequence of sample indices: epoch after epoch, each a new permutation.

    Positions count from 0 over all epochs and all processes: position `p` is in epoch `p // num_samples`.
    """

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: There is nothing to order, or the seed is out of range.
        """
        if not 1 <= self.num_samples <= _MAX_SAMPLES:
            raise InputError(f"cannot order {self.num_samples} samples; need 1 to 2^60")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed={self.seed} must be from 0 to 2^63 - 1")

    def epoch_of(self, position: int) -> int:
        """Return the epoch that a position is in."""
        return position // self.num_samples

    def index(self, position: int) -> int:
        """Return the sample at one position."""
        return int(self.at(np.array([position], dtype=np.int64))[0])

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the samples at positions `start` to `start + count - 1`."""
        return self.at(np.arange(start, start + count, dtype=np.int64))

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at any positions.

        Args:
            positions: Integers >= 0, of any epochs, in any order.

        Returns:
            Indices from 0 to `num_samples - 1`, one a position.

        Raises:
            ValueError: A position is negative.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"positions start at 0, got {positions.min()}")
        epochs, within = np.divmod(positions, self.num_samples)
        result = np.empty(positions.shape, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            result[chosen] = self._permute(within[chosen], int(epoch))
        return result

    def _permute(self, within: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        keys = _round_keys(self.seed, epoch)
        half_bits = max(_MIN_HALF_BITS, -(-(self.num_samples - 1).bit_length() // 2))
        values = _encrypt(within.astype(np.uint64), keys, half_bits)
        # Cycle walking: a value outside is encrypted again until it falls inside; the map stays one to one.
        outside = values >= self.num_samples
        while outside.any():
            values[outside] = _encrypt(values[outside], keys, half_bits)
            outside = values >= self.num_samples
        return values.astype(np.int64)


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    # Fields of fixed width: (seed, epoch) never gives the keys of (epoch, seed) or of (seed + 1, epoch - 1).
    text = seed.to_bytes(8, "little") + epoch.to_bytes(8, "little")
    digest = hashlib.blake2b(text, digest_size=8 * _NUM_ROUNDS, person=b"sed-order-1").digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _encrypt(values: NDArray[np.uint64], keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    """Permute 0 to 4^half_bits - 1 by a balanced Feistel network."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Stafford's variant 13 of the MurmurHash3 finaliser, as in SplitMix64; arithmetic modulo 2^64.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

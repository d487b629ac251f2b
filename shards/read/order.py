"""The sampling order: a keyed permutation per epoch, computed and never stored.

Guarantees: an epoch holds each index exactly once; the order is a function of (sizes of the shards, seed, epoch,
window) alone, so it does not depend on processes, workers or restarts; any stretch of it costs time and memory
in proportion to its length: 1,000 indices of 10^9 samples take milliseconds. NumPy's random streams are not used.

`SampleOrder` mixes the whole dataset: neighbours in it come from any shards. `WindowedOrder` goes through the shards
window by window, for data that is fetched or too large for the page cache.

References:
    Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains: a Feistel network with cycle walking.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from shards.errors import InputError

_NUM_ROUNDS = 8
_MIN_HALF_BITS = 3
_MAX_SAMPLES = 2**60
_NEARBY_REPLACEMENTS = 16
_MAX_LAYOUTS = 2


@dataclass(frozen=True)
class SampleOrder:
    """Endless sampling order: a new permutation of all samples every epoch.

    Positions count from 0 over all epochs and all processes: position `p` is in epoch `p // num_samples`.
    """

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: There are no samples, or the seed is out of range.
        """
        if not 1 <= self.num_samples <= _MAX_SAMPLES:
            raise InputError(f"cannot order {self.num_samples} samples; need 1 to 2^60")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed={self.seed} must be from 0 to 2^63 - 1")

    def index(self, position: int) -> int:
        """Return the sample at one position."""
        return int(self.at(np.array([position], dtype=np.int64))[0])

    def at(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the samples at any positions.

        Args:
            positions: Integers >= 0, of any epochs, in any order.

        Returns:
            Indices from 0 to `num_samples - 1`, one per position.

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
            result[chosen] = self._order_of_epoch(within[chosen], int(epoch))
        return result

    def replacement(self, position: int, attempt: int) -> int:
        """Return the replacement sample for a position whose own sample is corrupt.

        Args:
            position: Of the corrupt sample.
            attempt: From 0; increment it while the replacement is corrupt too.

        Returns:
            An index: a function of the order and the arguments alone.
        """
        epoch, within = divmod(position, self.num_samples)
        spare = np.array([(within + attempt) % self.num_samples], dtype=np.int64)
        return int(permute(spare, self.num_samples, round_keys(b"sed-spare-1", self.seed, epoch))[0])

    def _order_of_epoch(self, within: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        return permute(within, self.num_samples, round_keys(b"sed-order-1", self.seed, epoch))


@dataclass(frozen=True)
class _Layout:
    """One epoch's shards laid end to end, in the order of that epoch."""

    shards: NDArray[np.int64]
    """Their numbers, in that order."""
    edges: NDArray[np.int64]
    """Of each window: how many shards come before it; at the end, the number of shards."""
    first_index: NDArray[np.int64]
    """Of each shard in that order: its first sample's index in the dataset."""
    ends: NDArray[np.int64]
    """Of each shard in that order: the place after its last sample."""
    window_starts: NDArray[np.int64]
    """Of each window: its first place; at the end, the number of samples."""

    def window_of(self, within: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return the windows of some positions of the epoch."""
        return np.asarray(np.searchsorted(self.window_starts, within, side="right") - 1)

    def indices(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the dataset's indices of some places."""
        shards = np.searchsorted(self.ends, places, side="right")
        starts = np.where(shards > 0, self.ends[shards - 1], 0)
        return self.first_index[shards] + places - starts


@dataclass(frozen=True)
class WindowedOrder(SampleOrder):
    """Sampling order that reads from few shards at a time: shuffles shards into windows, and samples inside a window.

    Each epoch puts the shards into a new order and cuts it into windows of `window_shards` shards (or one less, so that
    all are about equal); inside a window, all samples are permuted. So any stretch of n positions of an epoch reads
    from at most `window_shards` times the number of windows that it crosses. It keeps a few numbers per shard.

    How random it is: a sample may come anywhere in an epoch, with other neighbours every epoch; but two samples of one
    shard always come within a window of each other. `docs/benchmarks.md` has the probability that a batch holds two
    sub-images of one photo.
    """

    shard_sizes: tuple[int, ...]
    window_shards: int
    _layouts: dict[int, _Layout] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: A window holds no shard, or the shards do not hold the samples.
        """
        super().__post_init__()
        if self.window_shards < 1 or sum(self.shard_sizes) != self.num_samples:
            raise InputError(
                f"cannot order {self.num_samples} samples of shards that hold {sum(self.shard_sizes)} in windows of "
                f"{self.window_shards} shards; a window needs 1 or more"
            )

    def windows_from(self, position: int, count: int) -> list[list[int]]:
        """Return the numbers of the shards of the window that a position is in, and of those after it.

        Args:
            position: Of the run.
            count: Number of windows; they continue into the next epoch.
        """
        epoch, within = divmod(position, self.num_samples)
        window, found = int(self._layout(epoch).window_of(within)), list[list[int]]()
        while len(found) < count:
            layout = self._layout(epoch)
            edges = layout.edges[window : window + 1 + count - len(found)].tolist()
            found += [layout.shards[start:end].tolist() for start, end in itertools.pairwise(edges)]
            epoch, window = epoch + 1, 0
        return found

    def _order_of_epoch(self, within: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        layout = self._layout(epoch)
        windows = layout.window_of(within)
        places = np.empty_like(within)
        for window in np.unique(windows):
            chosen = windows == window
            places[chosen] = self._permute_window(layout, int(window), within[chosen], epoch, b"sed-windo-1")
        return layout.indices(places)

    def _permute_window(
        self, layout: _Layout, window: int, within: NDArray[np.int64], epoch: int, purpose: bytes
    ) -> NDArray[np.int64]:
        start, end = layout.window_starts[window : window + 2].tolist()
        keys = round_keys(purpose, self.seed, epoch, window)
        return start + permute((within - start) % (end - start), end - start, keys)

    def replacement(self, position: int, attempt: int) -> int:
        """Return the replacement sample; the first few attempts stay in the position's window."""
        if attempt >= _NEARBY_REPLACEMENTS:
            return super().replacement(position, attempt)
        epoch, within = divmod(position, self.num_samples)
        layout = self._layout(epoch)
        spare = np.array([within + attempt], dtype=np.int64)
        window = layout.window_of(within)
        return int(layout.indices(self._permute_window(layout, int(window), spare, epoch, b"sed-spare-2"))[0])

    def _layout(self, epoch: int) -> _Layout:
        if epoch not in self._layouts:
            while len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.pop(next(iter(self._layouts)), None)
            self._layouts[epoch] = self._lay_out(epoch)
        return self._layouts[epoch]

    def _lay_out(self, epoch: int) -> _Layout:
        sizes = np.array(self.shard_sizes, dtype=np.int64)
        num_shards = len(sizes)
        shards = permute(np.arange(num_shards), num_shards, round_keys(b"sed-shard-1", self.seed, epoch))
        ends = np.cumsum(sizes[shards])
        num_windows = -(-num_shards // self.window_shards)
        edges = np.arange(num_windows + 1) * num_shards // num_windows
        return _Layout(shards, edges, (np.cumsum(sizes) - sizes)[shards], ends, np.concatenate([[0], ends])[edges])


def order_samples(shard_sizes: Sequence[int], seed: int, window_shards: int) -> SampleOrder:
    """Return the sampling order of a dataset.

    Args:
        shard_sizes: Samples of each shard.
        seed: Of the order.
        window_shards: Shards that are read at a time; 0, or all of them, shuffles the whole dataset.

    Raises:
        InputError: There are no samples, or a value is out of range.
    """
    if window_shards == 0 or window_shards >= len(shard_sizes):
        return SampleOrder(sum(shard_sizes), seed)
    return WindowedOrder(sum(shard_sizes), seed, tuple(shard_sizes), window_shards)


def permute(values: NDArray[np.int64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Permute the numbers from 0 to `size - 1`."""
    half_bits = max(_MIN_HALF_BITS, -(-(size - 1).bit_length() // 2))
    permuted = _encrypt(values.astype(np.uint64), keys, half_bits)
    # Cycle walking: a value outside is encrypted again until it falls inside; the map stays one to one.
    outside = permuted >= size
    while outside.any():
        permuted[outside] = _encrypt(permuted[outside], keys, half_bits)
        outside = permuted >= size
    return permuted.astype(np.int64)


def round_keys(purpose: bytes, *fields: int) -> NDArray[np.uint64]:
    """Return the keys of a permutation's rounds: a hash of the fields, each from 0 to 2^64 - 1."""
    # Fields of fixed width: (seed, epoch) never yields the keys of (epoch, seed) or of (seed + 1, epoch - 1).
    text = b"".join(value.to_bytes(8, "little") for value in fields)
    digest = hashlib.blake2b(text, digest_size=8 * _NUM_ROUNDS, person=purpose).digest()
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

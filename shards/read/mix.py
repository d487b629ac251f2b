"""Which dataset each sample of a run comes from, where several are mixed with fixed shares: arithmetic, nothing stored.

Positions of the run are cut into blocks, the shortest of 64 or more in which every share is a whole number of samples:
49 and 21 of 70% and 30%. Each block holds exactly so many of each dataset, in an order of its own, and each dataset
is read in its own order from its own position 0 on. So any stretch has its shares but for one block, no sample of a
dataset is left out or comes twice in its epoch, and the state of the data is the run's position alone.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import InputError
from shards.read.order import permute, round_keys

_LEAST_BLOCK = 64


@dataclass(frozen=True)
class _Block:
    """Of each position in a block: its dataset, and how many of that dataset come before it in the block."""

    sources: NDArray[np.int64]
    ranks: NDArray[np.int64]


@dataclass(frozen=True)
class Mix:
    """The mix of some datasets.

    Attributes:
        parts: Share of each dataset as a whole number, such as 7 and 3; only their ratios count.
        seed: Of the run.
    """

    parts: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: There is none, or one is not above 0.
        """
        if min(self.parts, default=0) < 1:
            raise InputError(f"the shares of a mix must be above 0; got {self.parts}")

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """Samples of each dataset in a block."""
        divisor = math.gcd(*self.parts)
        # A permutation of very few costs as much as one of many.
        times = -(-_LEAST_BLOCK * divisor // sum(self.parts))
        return tuple(times * part // divisor for part in self.parts)

    def at(self, position: int) -> tuple[int, int]:
        """Return which dataset the sample at a position of the run is of, and its position in that dataset's order."""
        if len(self.parts) == 1:
            return 0, position
        block, within = divmod(position, sum(self.counts))
        laid_out = _lay_out(self.counts, self.seed, block)
        source = int(laid_out.sources[within])
        return source, block * self.counts[source] + int(laid_out.ranks[within])

    def seed_of(self, source: int) -> int:
        """Return the seed of a dataset's own order; the first has the run's, as it has alone."""
        if source == 0:
            return self.seed
        text = self.seed.to_bytes(8, "little") + source.to_bytes(8, "little")
        digest = hashlib.blake2b(text, digest_size=8, person=b"sed-mix-seed").digest()
        return int.from_bytes(digest, "little") >> 1


@functools.lru_cache(maxsize=16)
def _lay_out(counts: tuple[int, ...], seed: int, block: int) -> _Block:
    size = sum(counts)
    slots = permute(np.arange(size), size, round_keys(b"sed-mix-1", seed, block))
    sources = np.searchsorted(np.cumsum(counts), slots, side="right")
    ranks = np.empty(size, dtype=np.int64)
    for source, count in enumerate(counts):
        ranks[sources == source] = np.arange(count)
    return _Block(sources, ranks)

"""Finds the hashes within some bits of others, every one of them, without comparing each with all.

Cut into bands, two hashes that differ in at most `bits` bits differ in few bits of at least one band (pigeonhole: not
every band can have more than its share). So a search looks up, band by band, the keys within that few bits of its own,
and compares what it finds (multi-index hashing: Norouzi, Punjani and Fleet, Fast Search in Hamming Space with
Multi-Index Hashing, 2012). Of a million hashes, thousands are compared. How many bands there are is chosen by what
the search will cost; where hashes are few, or `bits` is large, all are compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from shards.format.curation import HASH_BITS

NUM_WORDS = HASH_BITS // 64
Words: TypeAlias = UInt64[np.ndarray, "hashes 4"]
"""Hashes as big-endian words."""

# In nanoseconds: looking up a key, comparing a hash that was found by one, and one of a stretch of hashes.
_KEY_COST, _FOUND_COST, _STRETCH_COST = 8.0, 30.0, 2.0
_MAX_BAND_BITS = 24
_STRETCH = 4096
_MIN_REST = 2**14


class NearPairs(NamedTuple):
    """Pairs of hashes; the same pair may occur more than once."""

    query: Int64[np.ndarray, " pairs"]
    """Which of those searched for."""
    number: Int64[np.ndarray, " pairs"]
    """Which of those in the index, from 0 in the order of adding."""
    distance: Int64[np.ndarray, " pairs"]
    """In how many bits they differ."""

    def where(self, chosen: Bool[np.ndarray, " pairs"]) -> NearPairs:
        """Return some of the pairs."""
        return NearPairs(self.query[chosen], self.number[chosen], self.distance[chosen])

    def of(self, query: int) -> list[tuple[int, int]]:
        """Return (distance, number) of every pair of one of those searched for."""
        found = self.where(self.query == query)
        return list(zip(found.distance.tolist(), found.number.tolist(), strict=True))

    def nearest(self) -> dict[int, tuple[int, int]]:
        """Return (distance, number) of the nearest by query, of equally near ones the first."""
        order = np.lexsort((self.number, self.distance, self.query))
        queries, firsts = np.unique(self.query[order], return_index=True)
        first = order[firsts]
        places = zip(self.distance[first].tolist(), self.number[first].tolist(), strict=True)
        return dict(zip(queries.tolist(), places, strict=True))


def words_of(hexadecimal: Sequence[str]) -> Words:
    """Return hashes, each of 64 hex digits, as words."""
    data = bytes.fromhex("".join(hexadecimal))
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, NUM_WORDS)


class HashIndex:
    """Hashes to search in.

    Attributes:
        num_banded: How many are found by their bands; the others, added last, are compared with all.

    Args:
        bits: A pair is near if it differs in at most this many.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._words = np.empty((_MIN_REST, NUM_WORDS), np.uint64)
        self._size = 0
        self._bands: list[_Band] = []
        self.num_banded = 0

    def add(self, words: Words) -> None:
        """Add hashes; they get the next numbers."""
        end = self._size + len(words)
        if end > len(self._words):
            grown = np.empty((max(end, 2 * len(self._words)), NUM_WORDS), np.uint64)
            grown[: self._size] = self._words[: self._size]
            self._words = grown
        self._words[self._size : end] = words
        self._size = end
        if self._size - self.num_banded > max(_MIN_REST, self.num_banded // 16):
            self._build_bands()

    def near(self, words: Words) -> NearPairs:
        """Return every pair of one of these hashes and one in the index that is near."""
        found = [band.near(words, self._words, self._bits) for band in self._bands]
        rest = near_pairs(words, self._words[self.num_banded : self._size], self._bits)
        found.append(rest._replace(number=rest.number + self.num_banded))
        return NearPairs(*map(np.concatenate, zip(*found, strict=True)))

    def _build_bands(self) -> None:
        shapes = choose_bands(self._size, self._bits)
        self.num_banded = self._size if shapes else 0
        self._bands = [_Band.build(self._words[: self._size], shape) for shape in shapes]


def near_pairs(queries: Words, held: Words, bits: int) -> NearPairs:
    """Return every pair of `queries` and `held` that differs in at most `bits` bits, after comparing all."""
    found = [_near_in_stretch(queries, held, bits, start) for start in range(0, len(held), _STRETCH)]
    if not found:
        return NearPairs(*(np.empty(0, np.int64) for _ in NearPairs._fields))
    return NearPairs(*map(np.concatenate, zip(*found, strict=True)))


def _near_in_stretch(queries: Words, held: Words, bits: int, start: int) -> NearPairs:
    part = held[start : start + _STRETCH]
    # Half of the words exclude nearly all pairs.
    distances = np.bitwise_count(queries[:, :1] ^ part[:, 0])
    distances += np.bitwise_count(queries[:, 1:2] ^ part[:, 1])
    query, number = np.divmod(np.flatnonzero(distances <= bits), len(part))
    return _compared(queries, held, bits, query, number + start)


def _compared(
    queries: Words, held: Words, bits: int, query: Int64[np.ndarray, " pairs"], number: Int64[np.ndarray, " pairs"]
) -> NearPairs:
    distance = np.bitwise_count(queries[query] ^ held[number]).sum(axis=1, dtype=np.int64)
    is_near = distance <= bits
    return NearPairs(query[is_near], number[is_near], distance[is_near])


@dataclass(frozen=True)
class BandShape:
    """Some bits of a hash, and in how many of them a near pair may differ there."""

    first_bit: int
    num_bits: int
    radius: int

    @property
    def num_keys(self) -> int:
        """Keys within the radius of one."""
        return sum(math.comb(self.num_bits, count) for count in range(self.radius + 1))

    def keys(self, words: Words) -> UInt64[np.ndarray, " hashes"]:
        """Return these bits of hashes."""
        word, offset = divmod(self.first_bit, 64)
        keys = words[:, word] << np.uint64(offset)
        if offset + self.num_bits > 64:
            keys |= words[:, word + 1] >> np.uint64(64 - offset)
        return keys >> np.uint64(64 - self.num_bits)

    def changes(self) -> UInt64[np.ndarray, " keys"]:
        """Return what makes of a key, by exclusive or, every key within the radius."""
        flips = (
            sum(1 << place for place in places)
            for count in range(self.radius + 1)
            for places in itertools.combinations(range(self.num_bits), count)
        )
        return np.fromiter(flips, np.uint64, self.num_keys)


def choose_bands(num_hashes: int, bits: int) -> list[BandShape]:
    """Return the bands by which a search among some hashes costs least; none where comparing all does."""
    cost, best = num_hashes * _STRETCH_COST, list[BandShape]()
    for num_bands in range(-(-HASH_BITS // _MAX_BAND_BITS), HASH_BITS // 8 + 1):
        shapes = _bands(num_bands, bits)
        num_keys = sum(shape.num_keys for shape in shapes)
        num_found = sum(num_hashes * shape.num_keys / 2**shape.num_bits for shape in shapes)
        if num_keys * _KEY_COST + num_found * _FOUND_COST < cost:
            cost, best = num_keys * _KEY_COST + num_found * _FOUND_COST, shapes
    return best


def _bands(num_bands: int, bits: int) -> list[BandShape]:
    """Return bands of which at least one differs within its radius where two hashes differ in at most `bits`.

    If every band differed in more, their differences would add up to the sum of (radius + 1), which is bits + 1.
    """
    least, num_larger = divmod(bits, num_bands)
    edges = [number * HASH_BITS // num_bands for number in range(num_bands + 1)]
    radii = [least if number <= num_larger else least - 1 for number in range(num_bands)]
    return [
        BandShape(start, end - start, radius)
        for (start, end), radius in zip(itertools.pairwise(edges), radii, strict=True)
        if radius >= 0
    ]


@dataclass(frozen=True)
class _Band:
    """The hashes of an index by their keys in one band."""

    shape: BandShape
    changes: UInt64[np.ndarray, " keys"]
    numbers: Int64[np.ndarray, " hashes"]
    """Of the hashes, in the order of their keys."""
    starts: Int64[np.ndarray, " keys+1"]
    """Of each key: its first place in `numbers`; at the end, their count."""

    @classmethod
    def build(cls, words: Words, shape: BandShape) -> _Band:
        keys = shape.keys(words).astype(np.int64)
        counts = np.bincount(keys, minlength=2**shape.num_bits)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(shape, shape.changes(), np.argsort(keys, kind="stable"), starts)

    def near(self, queries: Words, held: Words, bits: int) -> NearPairs:
        keys = (self.shape.keys(queries)[:, None] ^ self.changes).astype(np.int64).ravel()
        starts = self.starts[keys]
        counts = self.starts[keys + 1] - starts
        hits = np.flatnonzero(counts)
        starts, counts = starts[hits], counts[hits]
        # Each hit's places are consecutive: the count so far, moved to where the hit starts.
        ends = np.cumsum(counts)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)
        return _compared(queries, held, bits, np.repeat(hits // len(self.changes), counts), self.numbers[places])

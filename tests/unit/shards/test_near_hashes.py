"""The search for near hashes finds every pair that comparing all of them does, and no other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import small_shard_config

from shards.format.curation import HASH_BITS, CurationRules
from shards.write.curation import curate
from shards.write.execution import SERIAL
from shards.write.near_hashes import BandShape, HashIndex, NearPairs, Words, choose_bands, near_pairs, words_of
from shards.write.plan import settings_of
from shards.write.survey import Photo


def random_words(rng: np.random.Generator, count: int) -> Words:
    return rng.integers(0, 2**64, (count, 4), dtype=np.uint64)


def flipped(words: Words, rng: np.random.Generator, num_bits: int) -> Words:
    """Each of the hashes with as many of its bits changed, others for each."""
    bits = np.unpackbits(words.astype(">u8").view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(HASH_BITS, num_bits, replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)


def as_set(pairs: NearPairs) -> set[tuple[int, int, int]]:
    return set(zip(*(column.tolist() for column in pairs), strict=True))


def brute_force(queries: Words, held: Words, bits: int) -> set[tuple[int, int, int]]:
    distances = np.bitwise_count(queries[:, None] ^ held[None]).sum(axis=2)
    return {(query, number, int(distances[query, number])) for query, number in np.argwhere(distances <= bits).tolist()}


def test_words_are_the_bits_of_the_text() -> None:
    text = ["0123456789abcdef" * 4, "f" * 64]
    assert words_of(text).tolist() == [[0x0123456789ABCDEF] * 4, [2**64 - 1] * 4]
    assert words_of([]).shape == (0, 4)


def test_comparing_all_finds_pairs_up_to_the_bound_and_none_beyond() -> None:
    rng = np.random.default_rng(0)
    held = random_words(rng, 5000)  # more than a stretch
    queries = np.concatenate([flipped(held[4990:4995], rng, 12), flipped(held[:5], rng, 13)])
    found = as_set(near_pairs(queries, held, 12))
    assert found == {(number, 4990 + number, 12) for number in range(5)} == brute_force(queries, held, 12)


@pytest.mark.parametrize("bits", [0, 5, 24, 40])
def test_index_with_bands_finds_what_comparing_all_does(bits: int) -> None:
    rng = np.random.default_rng(bits)
    held = random_words(rng, 20_000)
    index = HashIndex(bits)
    for part in np.split(held, [17_000, 18_000]):
        index.add(part)
    assert index.num_banded > 0
    assert index.num_banded < len(held)  # so that both ways of searching take part
    copies = [flipped(held[rng.choice(len(held), 40)], rng, num_bits) for num_bits in {0, bits // 2, bits, bits + 1}]
    queries = np.concatenate([*copies, random_words(rng, 10)])
    found = as_set(index.near(queries))
    assert found == brute_force(queries, held, bits)
    assert len(found) >= 40 * len({0, bits // 2, bits})


def test_index_finds_differences_wherever_they_are() -> None:
    # All in few bands, the worst that a band has to find, and spread evenly, the least that it may miss.
    rng = np.random.default_rng(3)
    held = random_words(rng, 20_000)
    index = HashIndex(40)
    index.add(held)
    assert index.num_banded == len(held)
    rows = []
    for first in range(0, HASH_BITS - 40, 8):
        rows.append(sum(1 << place for place in range(first, first + 40)))
    for step in range(2, 7):
        rows += [sum(1 << (place * step + shift) % HASH_BITS for place in range(40)) for shift in range(0, 40, 3)]
    changes = words_of([f"{row:064x}" for row in rows])
    assert {int(np.bitwise_count(change).sum()) for change in changes} == {40}
    found = index.near(held[: len(rows)] ^ changes).nearest()
    assert found == {number: (40, number) for number in range(len(rows))}


@pytest.mark.parametrize("bits", range(0, 65, 4))
def test_bands_cannot_all_exceed_their_radius(bits: int) -> None:
    for num_hashes in (10**5, 10**7, 10**9):
        shapes = choose_bands(num_hashes, bits)
        if shapes:
            assert sum(shape.radius + 1 for shape in shapes) == bits + 1
            pairs = itertools.pairwise(shapes)
            assert all(one.first_bit + one.num_bits <= other.first_bit for one, other in pairs)


def test_few_hashes_and_large_bounds_are_compared_with_all() -> None:
    assert choose_bands(1000, 40) == []
    assert choose_bands(10**6, 64) == []
    assert choose_bands(10**6, 40)


def test_keys_within_a_radius_are_counted_and_made() -> None:
    shape = BandShape(60, 10, 2)  # across two words
    assert shape.num_keys == 1 + 10 + math.comb(10, 2)
    changes = shape.changes().tolist()
    assert len(set(changes)) == shape.num_keys
    assert max(change.bit_count() for change in changes) == 2
    assert shape.keys(words_of([f"{0b1011001110 << (256 - 70):064x}"])).tolist() == [0b1011001110]


def test_nearest_is_the_first_of_equally_near_ones() -> None:
    pairs = NearPairs(np.array([1, 1, 1, 0]), np.array([9, 4, 4, 2]), np.array([3, 3, 3, 7]))
    assert pairs.nearest() == {0: (7, 2), 1: (3, 4)}
    assert pairs.of(0) == [(7, 2)]


def photo_of(number: int, side_px: int, words: list[int]) -> Photo:
    text = "".join(f"{word:016x}" for word in words)
    return Photo(f"{number % 5}/{number:06d}", "", 1, side_px, 100, f"{number}", perceptual_hash=text)


def keep_one_by_one(photos: list[Photo], bits: int, *, together: bool) -> tuple[list[str], dict[str, str]]:
    """Names of photos to use, and of the others what they are near to: each is compared with all before it."""
    kept, near = list[Photo](), dict[str, str]()
    for photo in sorted(photos, key=lambda photo: (-photo.height_px, photo.name)):
        own = int(str(photo.perceptual_hash), 16)
        distances = [(own ^ int(str(other.perceptual_hash), 16)).bit_count() for other in kept]
        found = [
            (distance, number)
            for number, distance in enumerate(distances)
            if distance <= bits and not (together and kept[number].folder == photo.folder)
        ]
        if found:
            near[photo.name] = f"{min(found)[0]} of 256 bits from {kept[min(found)[1]].name}"
        else:
            kept.append(photo)
    return [photo.name for photo in kept], near


@pytest.mark.parametrize("together", [False, True])
def test_curation_uses_the_photos_that_comparing_one_by_one_does(together: bool) -> None:
    rng = np.random.default_rng(7)
    groups = flipped(np.repeat(random_words(rng, 60), 8, axis=0), rng, 13)  # up to 26 bits apart
    sides_px = rng.integers(100, 104, len(groups)).tolist()
    likes = [photo_of(number, sides_px[number], row) for number, row in enumerate(groups.tolist())]
    # Larger photos, which are like no other, so that those that are like each other are found by bands.
    others = [photo_of(number, 200, row) for number, row in enumerate(random_words(rng, 20_000).tolist(), len(likes))]
    config = small_shard_config(Path("photos"), keep_together="folder" if together else "photo")
    settings = settings_of(replace(config, curation=CurationRules(near_duplicate_bits=24)))
    kept, rejects = curate([*likes, *others], settings, {}, {}, SERIAL)
    expected_kept, expected_near = keep_one_by_one(likes, 24, together=together)
    assert {reject.path: reject.detail for reject in rejects} == expected_near
    assert [photo.name for photo in kept] == sorted(photo.name for photo in others) + expected_kept
    assert len(expected_near) > 100


def test_photo_near_to_evaluation_images_is_rejected_for_the_nearest() -> None:
    rng = np.random.default_rng(8)
    own = random_words(rng, 3)
    copies = {bits: flipped(own[:1], rng, bits)[0].tolist() for bits in (9, 4, 24)}
    evaluation = {f"Set5/{bits}": "".join(f"{word:016x}" for word in row) for bits, row in copies.items()}
    settings = settings_of(replace(small_shard_config(Path("photos")), curation=CurationRules(near_duplicate_bits=24)))
    photos = [photo_of(number, 100, row) for number, row in enumerate(own.tolist())]
    kept, rejects = curate(photos, settings, evaluation, {}, SERIAL)
    assert kept == photos[1:]
    assert [reject.detail for reject in rejects] == ["4 of 256 bits from the evaluation image Set5/4"]

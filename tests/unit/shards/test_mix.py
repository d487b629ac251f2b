"""The mix of datasets: shares in any stretch, no sample left out, and arithmetic from any position."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from shards.errors import InputError
from shards.read.mix import Mix

PARTS = [(700, 300), (1, 1), (995, 5), (500, 250, 250), (333, 333, 334), (1000,)]


@pytest.mark.parametrize("parts", PARTS)
def test_each_dataset_is_read_in_its_own_order_from_the_start(parts: tuple[int, ...]) -> None:
    mix = Mix(parts, seed=3)
    found = [mix.at(position) for position in range(3000)]
    for source in range(len(parts)):
        own = [position for number, position in found if number == source]
        assert own == list(range(len(own)))


@pytest.mark.parametrize("parts", PARTS)
def test_any_stretch_has_its_shares_but_for_a_block(parts: tuple[int, ...]) -> None:
    mix = Mix(parts, seed=3)
    block = sum(mix.counts)
    for first, length in ((0, 3 * block), (17, 4 * block), (5 * block + 1, 2 * block)):
        counts = Counter(mix.at(position)[0] for position in range(first, first + length))
        for source, count in enumerate(mix.counts):
            assert abs(counts[source] - count * length / block) <= count


def test_blocks_are_the_shortest_of_whole_numbers_and_mixed_each_in_its_own_way() -> None:
    mix = Mix((700, 300), seed=3)
    assert mix.counts == (49, 21)
    assert [Mix(parts, seed=3).counts for parts in ((1, 1), (995, 5), (63, 1), (32, 33))] == [
        (32, 32),
        (199, 1),
        (63, 1),
        (32, 33),
    ]
    blocks = [tuple(mix.at(70 * block + within)[0] for within in range(70)) for block in range(20)]
    assert {sum(block) for block in blocks} == {21}
    assert len(set(blocks)) == 20


def test_mix_is_a_function_of_shares_seed_and_position_alone() -> None:
    mix = Mix((700, 300), seed=3)
    positions = [0, 12345, 10**12, 7, 12345]
    expected = [mix.at(position) for position in positions]
    assert [Mix((70, 30), seed=3).at(position) for position in reversed(positions)] == expected[::-1]
    assert [pickle.loads(pickle.dumps(mix)).at(position) for position in positions] == expected
    others = [Mix((700, 300), seed=4).at(position) for position in range(200)]
    assert [mix.at(position) for position in range(200)] != others
    # Pinned: a resumed run must read what it would have read.
    assert [mix.at(10**6 + k) for k in range(6)] == [
        (0, 699999),
        (0, 700000),
        (1, 300001),
        (0, 700001),
        (0, 700002),
        (0, 700003),
    ]


def test_orders_of_the_datasets_have_seeds_of_their_own_and_the_first_the_runs() -> None:
    mix = Mix((1, 1, 1), seed=2**62)
    seeds = [mix.seed_of(source) for source in range(3)]
    assert seeds[0] == 2**62
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_shares_that_are_none_are_refused() -> None:
    for parts in ((), (1, 0), (-1, 2)):
        with pytest.raises(InputError, match="shares of a mix must be above 0"):
            Mix(parts, seed=0)


def test_block_of_a_thousand_holds_exactly_its_shares() -> None:
    parts = (600, 399, 1)
    mix = Mix(parts, seed=1)
    sources = np.array([mix.at(position)[0] for position in range(1000)])
    assert np.bincount(sources).tolist() == list(parts)

import pickle

import numpy as np
import pytest

from shards.errors import InputError
from shards.read.order import SampleOrder, order_samples

GOLDEN_10 = [5, 4, 1, 0, 3, 2, 7, 9, 6, 8, 5, 3, 9, 1, 4, 0, 2, 7, 6, 8]
GOLDEN_BILLION = [88663581, 683765791, 366255913, 763377106]
GOLDEN_WINDOWED = [2, 1, 12, 9, 10, 11, 13, 0, 3, 7, 4, 8, 5, 6, 8, 5, 6, 7, 4, 3, 10, 0, 2, 1, 13, 11, 9, 12]


def indices_of(order: SampleOrder, start: int, count: int) -> np.ndarray:
    return order.at(np.arange(start, start + count))


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 7, 16, 63, 64, 65, 100, 255, 1000, 4097, 20011])
def test_an_epoch_when_read_whole_holds_each_index_once(num_samples: int) -> None:
    order = SampleOrder(num_samples, seed=3)
    for epoch in (0, 1, 7):
        indices = indices_of(order, epoch * num_samples, num_samples)
        assert np.array_equal(np.sort(indices), np.arange(num_samples))


def test_indices_when_read_in_pieces_of_any_size_equal_the_whole() -> None:
    order = SampleOrder(37, seed=1)
    whole = indices_of(order, 0, 200)
    for size in (1, 3, 8, 50):
        pieces = [indices_of(order, start, min(size, 200 - start)) for start in range(0, 200, size)]
        assert np.array_equal(np.concatenate(pieces), whole)
    assert [order.index(position) for position in range(200)] == whole.tolist()
    # Every rank takes a strided share; together they are the sequence.
    for world in (2, 3, 8):
        shares = [order.at(np.arange(rank, 200, world)) for rank in range(world)]
        assert all(np.array_equal(share, whole[rank::world]) for rank, share in enumerate(shares))


def test_orders_when_seed_or_epoch_differ_are_different_even_when_swapped() -> None:
    num_samples = 500
    orders = {
        (seed, epoch): indices_of(SampleOrder(num_samples, seed), epoch * num_samples, num_samples).tobytes()
        for seed in range(6)
        for epoch in range(6)
    }
    assert len(set(orders.values())) == len(orders)


def test_order_when_seed_is_fixed_is_pinned() -> None:
    assert indices_of(SampleOrder(10, seed=0), 0, 20).tolist() == GOLDEN_10
    assert indices_of(SampleOrder(10**9, seed=7), 10**9 - 2, 4).tolist() == GOLDEN_BILLION


@pytest.mark.parametrize("num_samples", [2, 5, 10])
def test_first_index_when_many_seeds_are_tried_is_uniform(num_samples: int) -> None:
    first = [SampleOrder(num_samples, seed).index(0) for seed in range(1000)]
    counts = np.bincount(first, minlength=num_samples)
    expected = len(first) / num_samples
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    # Mean of the law is num_samples - 1, its deviation sqrt(2 (num_samples - 1)); five deviations.
    assert chi_squared < num_samples - 1 + 5 * np.sqrt(2 * (num_samples - 1)) + 3


def test_neighbours_when_shuffled_are_spread_out() -> None:
    indices = indices_of(SampleOrder(10_000, seed=2), 0, 10_000)
    assert abs(float(np.corrcoef(indices[:-1], indices[1:])[0, 1])) < 0.05


@pytest.mark.parametrize(("num_samples", "seed"), [(0, 0), (-1, 0), (2**61, 0), (5, -1), (5, 2**63)])
def test_order_when_out_of_range_is_refused(num_samples: int, seed: int) -> None:
    with pytest.raises(InputError):
        SampleOrder(num_samples, seed)


def test_positions_when_negative_are_refused() -> None:
    with pytest.raises(ValueError, match="start at 0"):
        SampleOrder(5, 0).index(-1)


SIZES = (7, 12, 1, 30, 9, 9, 25, 3, 18, 11, 6, 14)
"""Of twelve shards: very unequal."""


def shards_of(indices: np.ndarray, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    return np.searchsorted(np.cumsum(sizes), indices, side="right")


@pytest.mark.parametrize("window_shards", [1, 2, 3, 5, 11, 12, 40])
def test_windowed_epoch_when_read_whole_holds_each_index_once(window_shards: int) -> None:
    order, total = order_samples(SIZES, seed=3, window_shards=window_shards), sum(SIZES)
    epochs = [indices_of(order, epoch * total, total) for epoch in (0, 1, 7)]
    for indices in epochs:
        assert np.array_equal(np.sort(indices), np.arange(total))
    assert len({indices.tobytes() for indices in epochs}) == 3


@pytest.mark.parametrize(("num_shards", "window_shards"), [(40, 4), (37, 5), (64, 1), (200, 16)])
def test_windowed_stretch_when_read_touches_few_shards(num_shards: int, window_shards: int) -> None:
    size = 20
    sizes = (size,) * num_shards
    total = sum(sizes)
    indices = indices_of(order_samples(sizes, seed=1, window_shards=window_shards), 0, total)
    smallest_window = (num_shards // -(-num_shards // window_shards)) * size
    for stretch in (1, size, 100, 333):
        bound = window_shards * (2 + (stretch - 2) // smallest_window) if stretch > 1 else 1
        for start in range(0, total - stretch, 17):
            assert len(np.unique(shards_of(indices[start : start + stretch], sizes))) <= bound
    # Inside a window the shards are mixed: a batch comes from several, if there are several.
    assert len(np.unique(shards_of(indices[:size], sizes))) > window_shards // 2


def test_windowed_order_when_taken_in_shares_or_pieces_is_one_sequence() -> None:
    order, total = order_samples(SIZES, seed=1, window_shards=3), sum(SIZES)
    whole = indices_of(order, 0, 3 * total)
    assert [order.index(position) for position in range(3 * total)] == whole.tolist()
    again = pickle.loads(pickle.dumps(order_samples(SIZES, seed=1, window_shards=3)))
    for world in (1, 2, 3, 4, 6, 8):
        shares = [again.at(np.arange(rank, 3 * total, world)) for rank in range(world)]
        assert all(np.array_equal(share, whole[rank::world]) for rank, share in enumerate(shares))
    shuffled = np.random.RandomState(0).permutation(3 * total)
    assert np.array_equal(again.at(shuffled), whole[shuffled])


def test_windowed_orders_when_seed_epoch_or_window_differ_are_different_even_when_swapped() -> None:
    total = sum(SIZES)
    orders = {
        (seed, epoch, window): indices_of(order_samples(SIZES, seed, window), epoch * total, total).tobytes()
        for seed in range(4)
        for epoch in range(4)
        for window in (0, 2, 3, 6)
    }
    assert len(set(orders.values())) == len(orders)


def test_windowed_epochs_when_they_change_put_other_shards_together() -> None:
    sizes, total = (10,) * 40, 400
    order = order_samples(sizes, seed=0, window_shards=4)
    windows = [
        {
            frozenset(shards_of(window, sizes).tolist())
            for window in np.split(indices_of(order, epoch * total, total), 10)
        }
        for epoch in range(4)
    ]
    assert all(len(windows[a] & windows[b]) < 3 for a in range(4) for b in range(a))


def test_windowed_order_when_seed_is_fixed_is_pinned() -> None:
    assert indices_of(order_samples((3, 4, 2, 5), seed=0, window_shards=2), 0, 28).tolist() == GOLDEN_WINDOWED


@pytest.mark.parametrize("window_shards", [0, 3])
def test_replacements_with_growing_attempts_reach_every_sample_and_begin_nearby(window_shards: int) -> None:
    order, total = order_samples(SIZES, seed=4, window_shards=window_shards), sum(SIZES)
    position = 2 * total + 31
    found = [order.replacement(position, attempt) for attempt in range(16 + total)]
    assert found == [order.replacement(position, attempt) for attempt in range(16 + total)]
    assert set(found) == set(range(total))
    assert found[0] != order.replacement(position + 1, 0)
    assert found[:8] != [order.replacement(position - total, attempt) for attempt in range(8)]
    if window_shards:
        assert len(np.unique(shards_of(np.array(found[:16])))) <= window_shards


@pytest.mark.parametrize("window_shards", [-1, -5])
def test_window_when_negative_is_refused(window_shards: int) -> None:
    with pytest.raises(InputError, match="needs 1 or more"):
        order_samples(SIZES, 0, window_shards)

import numpy as np
import pytest

from shards.errors import InputError
from shards.order import SampleOrder

GOLDEN_10 = [5, 4, 1, 0, 3, 2, 7, 9, 6, 8, 5, 3, 9, 1, 4, 0, 2, 7, 6, 8]
GOLDEN_BILLION = [88663581, 683765791, 366255913, 763377106]


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 7, 16, 63, 64, 65, 100, 255, 1000, 4097, 20011])
def test_an_epoch_when_read_whole_holds_each_index_once(num_samples: int) -> None:
    order = SampleOrder(num_samples, seed=3)
    for epoch in (0, 1, 7):
        indices = order.indices(epoch * num_samples, num_samples)
        assert np.array_equal(np.sort(indices), np.arange(num_samples))


def test_indices_when_read_in_pieces_of_any_size_equal_the_whole() -> None:
    order = SampleOrder(37, seed=1)
    whole = order.indices(0, 200)
    for size in (1, 3, 8, 50):
        pieces = [order.indices(start, min(size, 200 - start)) for start in range(0, 200, size)]
        assert np.array_equal(np.concatenate(pieces), whole)
    assert [order.index(position) for position in range(200)] == whole.tolist()
    # Every rank takes a strided share; together they are the sequence.
    for world in (2, 3, 8):
        shares = [order.at(np.arange(rank, 200, world)) for rank in range(world)]
        assert all(np.array_equal(share, whole[rank::world]) for rank, share in enumerate(shares))


def test_orders_when_seed_or_epoch_differ_are_different_even_when_swapped() -> None:
    num_samples = 500
    orders = {
        (seed, epoch): SampleOrder(num_samples, seed).indices(epoch * num_samples, num_samples).tobytes()
        for seed in range(6)
        for epoch in range(6)
    }
    assert len(set(orders.values())) == len(orders)


def test_order_when_seed_is_fixed_is_pinned() -> None:
    assert SampleOrder(10, seed=0).indices(0, 20).tolist() == GOLDEN_10
    assert SampleOrder(10**9, seed=7).indices(10**9 - 2, 4).tolist() == GOLDEN_BILLION


@pytest.mark.parametrize("num_samples", [2, 5, 10])
def test_first_index_when_many_seeds_are_tried_is_uniform(num_samples: int) -> None:
    first = [SampleOrder(num_samples, seed).index(0) for seed in range(1000)]
    counts = np.bincount(first, minlength=num_samples)
    expected = len(first) / num_samples
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    # Mean of the law is num_samples - 1, its deviation sqrt(2 (num_samples - 1)); five deviations.
    assert chi_squared < num_samples - 1 + 5 * np.sqrt(2 * (num_samples - 1)) + 3


def test_neighbours_when_shuffled_are_spread_out() -> None:
    indices = SampleOrder(10_000, seed=2).indices(0, 10_000)
    assert abs(float(np.corrcoef(indices[:-1], indices[1:])[0, 1])) < 0.05


def test_epoch_of_when_position_crosses_an_epoch_counts_on() -> None:
    order = SampleOrder(10, seed=0)
    assert [order.epoch_of(position) for position in (0, 9, 10, 25)] == [0, 0, 1, 2]


@pytest.mark.parametrize(("num_samples", "seed"), [(0, 0), (-1, 0), (2**61, 0), (5, -1), (5, 2**63)])
def test_order_when_out_of_range_is_refused(num_samples: int, seed: int) -> None:
    with pytest.raises(InputError):
        SampleOrder(num_samples, seed)


def test_positions_when_negative_are_refused() -> None:
    with pytest.raises(ValueError, match="start at 0"):
        SampleOrder(5, 0).index(-1)

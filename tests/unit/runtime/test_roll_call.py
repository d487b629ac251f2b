"""The roll call over a real store: who is missing, and how many requests it takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from torch._C._distributed_c10d import HashStore
from torch.distributed import DistNetworkError

import pipeline.runtime.roll_call
from pipeline.runtime.roll_call import RollCall, RollStore

HOSTS = [f"node{rank // 8}" for rank in range(24)]


@pytest.fixture(autouse=True)
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.runtime.roll_call, "WINDOW_S", 2.0)  # a busy machine starts 21 threads late


def roll_calls(store: RollStore, ranks: list[int]) -> list[list[int]]:
    """What each of some ranks finds missing, all of them at once."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda rank: RollCall(rank, HOSTS, store, 5.0).missing(), ranks))


def test_ranks_that_do_not_report_are_missing() -> None:
    reporting = [rank for rank in range(24) if rank not in {0, 7, 23}]
    assert roll_calls(cast(RollStore, HashStore()), reporting) == [[0, 7, 23]] * 21


def test_nobody_is_missing_where_all_report() -> None:
    assert roll_calls(cast(RollStore, HashStore()), list(range(24))) == [[]] * 24


def test_rank_that_reports_twice_is_one_rank() -> None:
    store = cast(RollStore, HashStore())
    assert roll_calls(store, [5])[0] == roll_calls(store, [5])[0] == [rank for rank in range(24) if rank != 5]


class _LostStore:
    """A store whose process has died."""

    def set_timeout(self, *_: Any) -> Any:
        raise DistNetworkError("connection reset by peer")

    append = get = set_timeout


def test_first_rank_is_missing_where_its_store_is_gone() -> None:
    assert RollCall(3, HOSTS, _LostStore(), 5.0).missing() == [0]

"""Prefetches the shards of the current and the next window in the background."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from shards.errors import ShardError
from shards.read.order import SampleOrder, WindowedOrder
from shards.read.reader import ShardSet

_LOG = logging.getLogger(__name__)
_NUM_WINDOWS = 2


class Prefetcher:
    """One per process; the processes of a machine share the work through the cache's locks.

    Args:
        sets: What is read: the images, and perhaps their features, which have as many shards with the same samples.
            Local sets are skipped.
        order: The sampling order. Without windows, all shards are fetched, first to last.
        num_sharing: Number of prefetchers that share the cache: one for each remote dataset of a mix.
    """

    def __init__(self, sets: Sequence[ShardSet], order: SampleOrder, num_sharing: int = 1) -> None:
        self._sets = [shards for shards in sets if shards.cache_limit_bytes]
        self._num_sharing = num_sharing
        self._order = order
        self._current: list[list[int]] = []
        self._waiting: list[int] = []
        self._thread: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_current": [], "_waiting": [], "_thread": None}

    def advance(self, position: int) -> None:
        """Report the position being read. Cheap, and never waits for the store."""
        if not self._sets:
            return
        windows = self._windows(position)
        if windows == self._current:
            return
        self._current, self._waiting = windows, self._that_fit(itertools.chain.from_iterable(windows))
        if self._thread is None or not self._thread.is_alive():
            # It ends with its list or with the process: a daemon thread delays no exit.
            self._thread = threading.Thread(target=self._fetch, name="prefetch", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until all requested shards are fetched."""
        if self._thread is not None:
            self._thread.join()

    def _windows(self, position: int) -> list[list[int]]:
        if isinstance(self._order, WindowedOrder):
            return self._order.windows_from(position, _NUM_WINDOWS)
        return self._current or [list(range(len(self._sets[0].manifest.shards)))]

    def _that_fit(self, shards: Iterable[int]) -> list[int]:
        """Return the longest prefix of some shards that fits our part of the cache: no fetch evicts an earlier one."""
        chosen, size_bytes, limit_bytes = list[int](), 0, self._sets[0].cache_limit_bytes // self._num_sharing
        for shard in shards:
            size_bytes += sum(shards.manifest.shards[shard].size_bytes for shards in self._sets)
            if size_bytes > limit_bytes:
                break
            chosen.append(shard)
        return chosen

    def _fetch(self) -> None:
        while self._waiting:
            shard = self._waiting.pop(0)
            try:
                for shards in self._sets:
                    shards.prefetch(shard)
            except ShardError as error:
                _LOG.debug("prefetching failed: %s", error)  # reading the shard will raise it

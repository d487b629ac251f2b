"""Throughput of training, and the share of its time that it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline.data.batch import Batch


class Pace:
    """Times the steps of this process since the last report.

    Args:
        images_seen: Position of the run.
    """

    def __init__(self, images_seen: int) -> None:
        self._images_seen = images_seen
        self._since_s = time.monotonic()
        self._waited_s = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, timing how long each is waited for."""
        source, end = iter(batches), object()
        while True:
            start_s = time.monotonic()
            batch = next(source, end)
            self._waited_s += time.monotonic() - start_s
            if not isinstance(batch, Batch):
                return
            yield batch

    def take(self, images_seen: int) -> dict[str, float]:
        """Return images per second, and percent of the time waited for data, since the last call; begin anew."""
        now_s = time.monotonic()
        elapsed_s = max(now_s - self._since_s, 1e-9)
        values = {
            "speed/images_per_second": (images_seen - self._images_seen) / elapsed_s,
            "speed/data_wait_percent": 100 * min(1.0, self._waited_s / elapsed_s),
        }
        self._images_seen, self._since_s, self._waited_s = images_seen, now_s, 0.0
        return values

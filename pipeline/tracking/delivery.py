"""Brings one tracker up to date with a run, from a thread, so that no server can stop or slow training.

After a failure nothing is assumed about what the tracker received: it is opened again, says what it has, and gets the
rest from the disk. So nothing is sent twice, whoever died.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import RefusedError, TrackingError
from pipeline.tracking.description import Report
from pipeline.tracking.environment import first_line
from pipeline.tracking.outbox import Outbox, Waiting
from pipeline.tracking.tracker import Tracker
from shards.format.photos import DecodeError, read_file, read_photo

_LOG = logging.getLogger(__name__)
CLOSE_TIMEOUT_S = 60.0
UNREACHABLE_CLOSE_TIMEOUT_S = 5.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_MAX_HELD_REPORTS = 1000
_MAX_PIXELS = 1 << 26
_COUNTS_OF_FAULTS = ("data/substituted", "/skipped_updates")
"""Ends of the names of counts that are zero in a healthy run: their zeros are not sent, or flat charts come first."""

# One at a time: their libraries share others, whose circular imports fail when two threads begin them at once.
_OPENING = threading.Lock()

Record = Callable[[], Sequence[Report]]
"""Reads all reports of a run from the disk."""


class Delivery:
    """One tracker, and what it has not received yet.

    Args:
        name: Of the tracker, for messages.
        tracker: It; opened here.
        outbox: Where its pictures and files wait.
        record: Every report so far, which must be on the disk before `report` is called.
    """

    def __init__(self, name: str, tracker: Tracker, outbox: Outbox, record: Record) -> None:
        self._name = name
        self._tracker = tracker
        self._outbox = outbox
        self._record = record
        self._is_open = False
        self._reports: list[Report] | None = None  # None: whatever the disk has
        self._lock = threading.Lock()

    def report(self, report: Report) -> None:
        """Hold numbers for the next delivery. Too many are dropped here, and read from the disk then."""
        with self._lock:
            if self._reports is not None:
                self._reports.append(report)
                if len(self._reports) > _MAX_HELD_REPORTS:
                    self._reports = None

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        """Hold a PNG for the next delivery."""
        self._outbox.add_picture(name, path, images_seen)

    def file(self, path: Path) -> None:
        """Hold a file for the next delivery."""
        self._outbox.add_file(path)

    def deliver(self) -> None:
        """Send everything that the tracker lacks.

        Raises:
            TrackingError: The tracker failed, in whatever way; it is opened again by the next call.
        """
        with self._reporting_errors():
            if not self._is_open:
                with _OPENING:
                    self._tracker.open()
                self._is_open = True
            with self._lock:
                held, self._reports = self._reports, []
            self._tracker.send(self._missing(self._record() if held is None else held))
            for waiting in self._outbox:
                self._send(waiting)

    def end(self, status: str, unix_s: float | None = None) -> None:
        """Mark the run's end in the tracker, after a delivery.

        Raises:
            TrackingError: See `deliver`.
        """
        with self._reporting_errors():
            self._tracker.end(status, unix_s)

    @contextlib.contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Turn every error into a `TrackingError`: each tracker's library has its own, without a common base."""
        try:
            yield
        except Exception as error:
            self._is_open = False
            with self._lock:
                self._reports = None
            raise TrackingError(f"{self._name} cannot be reached ({first_line(error)})") from error

    def _missing(self, reports: Sequence[Report]) -> list[Report]:
        left = [
            replace(
                report,
                values={
                    name: value
                    for name, value in report.values.items()
                    if _is_shown(name, value) and not self._tracker.has(name, report.images_seen)
                },
            )
            for report in reports
        ]
        return [report for report in left if report.values]

    def _send(self, waiting: Waiting) -> None:
        try:
            if waiting.images_seen is None:
                self._tracker.file(waiting.path)
            elif (image := _pixels(waiting.path)) is not None:
                self._tracker.picture(waiting.name, image, waiting.images_seen)
        except RefusedError as error:
            _LOG.warning("%s does not accept %s: %s", self._name, waiting.name, first_line(error))
        self._outbox.remove(waiting)


def _is_shown(name: str, value: float) -> bool:
    return value != 0 or not name.endswith(_COUNTS_OF_FAULTS)


def _pixels(path: Path) -> np.ndarray | None:
    """Return the pixels of a picture; None of a file that is none, such as one that a full disk has cut."""
    with contextlib.suppress(OSError, DecodeError):
        return read_photo(read_file(path, max_pixels=_MAX_PIXELS), max_pixels=_MAX_PIXELS).pixels
    return None


class Background:
    """A delivery that a thread makes whenever there is something new, and again after a pause where it failed."""

    def __init__(self, name: str, delivery: Delivery) -> None:
        self._name = name
        self._delivery = delivery
        self._wake = threading.Event()
        self._wake.set()
        self._ending = threading.Event()
        self._status = ""
        self._num_failures = 0
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def report(self, report: Report) -> None:
        """Hold numbers, and send them soon. Never blocks, never raises."""
        self._delivery.report(report)
        self._wake.set()

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        """Hold a PNG, and send it soon. Waits for the disk at most; never raises."""
        with self._surviving():
            self._delivery.picture(name, path, images_seen)

    def file(self, path: Path) -> None:
        """Hold a file, and send it soon. Waits for the disk at most; never raises."""
        with self._surviving():
            self._delivery.file(path)

    def close(self, status: str) -> None:
        """End the run with a status, waiting a bounded time for what is held."""
        self._status = status
        self._ending.set()
        self._wake.set()
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        while self._thread.is_alive() and time.monotonic() < deadline_s:
            self._thread.join(0.05)
            if self._num_failures:
                deadline_s = min(deadline_s, time.monotonic() + UNREACHABLE_CLOSE_TIMEOUT_S)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._warn(f"nothing can wait for {self._name} ({first_line(error)})")
        self._wake.set()

    def _work(self) -> None:
        is_last = False
        while not is_last:
            if self._num_failures:
                self._ending.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._num_failures - 1)))
            else:
                self._wake.wait()
            self._wake.clear()
            is_last = self._ending.is_set()
            try:
                self._delivery.deliver()
                if is_last:
                    self._delivery.end(self._status)
                self._num_failures = 0
            except TrackingError as error:
                self._num_failures += 1
                self._warn(str(error))

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning("%s; the run folder has everything, and it is sent later", reason)

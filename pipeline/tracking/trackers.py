"""The trackers of a run, as training sees them: calls that never wait for a server and never raise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.tracking.delivery import Background, Delivery, Record
from pipeline.tracking.description import Report, RunDescription
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.tracker import TRACKERS

_OUTBOX = "outbox"


class Trackers:
    """Any number of trackers; none for ranks other than the leader.

    Args:
        members: Each with its thread.
    """

    def __init__(self, members: Sequence[Background] = ()) -> None:
        self._members = members

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Report numbers, which must be on the disk, at a position of the run."""
        report = Report(images_seen, values, time.time())
        for member in self._members:
            member.report(report)

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        """Show an RGB PNG; those of one name at several positions are one series."""
        for member in self._members:
            member.picture(name, path, images_seen)

    def file(self, path: Path) -> None:
        """Keep a file with the run."""
        for member in self._members:
            member.file(path)

    def close(self, status: str) -> None:
        """End the run as FINISHED, KILLED or FAILED, waiting a bounded time for what is held."""
        for member in self._members:
            member.close(status)


def open_trackers(names: Sequence[str], description: RunDescription, folder: Path, record: Record) -> Trackers:
    """Return trackers that have begun, each in its thread, to catch up with a run.

    Args:
        names: Of `TRACKERS`.
        description: Of the run.
        folder: The run's `tracking` folder.
        record: Reads every report so far.
    """
    return Trackers([Background(name, _delivery(name, description, folder, record)) for name in names])


def send_later(
    name: str, description: RunDescription, folder: Path, record: Record, status: str, files: Sequence[Path] = ()
) -> None:
    """Send what a tracker lacks of a run that no process trains, more files, and the run's end.

    Other arguments are as in `open_trackers`.

    Raises:
        TrackingError: The tracker failed; nothing is lost, and another call sends the rest.
    """
    delivery = _delivery(name, description, folder, record)
    for path in files:
        delivery.file(path)
    delivery.deliver()
    last = max((report.unix_s or 0.0 for report in record()), default=0.0)
    delivery.end(status, last or None)


def _delivery(name: str, description: RunDescription, folder: Path, record: Record) -> Delivery:
    own = folder / name
    return Delivery(name, TRACKERS[name].create(description, own), Outbox(own / _OUTBOX, folder.parent), record)

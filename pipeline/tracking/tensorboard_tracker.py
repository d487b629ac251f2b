"""A run in TensorBoard's event files, in the run folder: `tensorboard --logdir RUN_DIR/tracking/tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.tracking.description import Report, RunDescription
from pipeline.tracking.tracker import TRACKERS, TrackerKind
from shards.format.names import as_text

_EVENTS = "events"


class TensorBoardTracker:
    """Event files that each call of a run adds to.

    Args:
        description: Of the run; its configuration is shown as text.
        folder: Of the run's own; the event files are in `events` there.
    """

    def __init__(self, description: RunDescription, folder: Path) -> None:
        self._description = description
        self._folder = folder / _EVENTS
        self._sent: dict[str, set[int]] = {}
        self._writer: Any = None

    def open(self) -> None:
        """Open a new event file, and read what the others have."""
        from torch.utils.tensorboard import SummaryWriter

        self._sent = self._find_sent()
        if self._writer is not None:  # a write has failed
            self._writer.close()
        self._writer = SummaryWriter(str(self._folder))
        if not self._sent:
            configuration = json.dumps(dict(self._description.parameters), default=str, indent=1)
            self._writer.add_text("configuration", f"```\n{configuration}\n```")

    def _find_sent(self) -> dict[str, set[int]]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        if not self._folder.is_dir():
            return {}
        # 0: every one; of the kinds that need not be read, one.
        events = EventAccumulator(str(self._folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
        events.Reload()
        return {tag: {event.step for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}

    def has(self, name: str, images_seen: int) -> bool:
        """Return whether the event files have a value of a metric at a position."""
        return images_seen in self._sent.get(as_text(name), ())

    def send(self, reports: Sequence[Report]) -> None:
        """Write numbers."""
        for report in reports:
            for name, value in report.values.items():
                self._writer.add_scalar(as_text(name), value, report.images_seen, walltime=report.unix_s)
                self._sent.setdefault(as_text(name), set()).add(report.images_seen)
        self._writer.flush()

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Write a picture."""
        self._writer.add_image(as_text(name), image, images_seen, dataformats="HWC")

    def file(self, path: Path) -> None:
        """Do nothing: TensorBoard keeps no files, and the run folder has them."""

    def end(self, status: str, unix_s: float | None = None) -> None:
        """Close the event file."""
        self._writer.close()


TRACKERS.add(TrackerKind("tensorboard", TensorBoardTracker, package="tensorboard"))

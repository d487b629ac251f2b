"""A run for Weights & Biases, written offline into the run folder; `wandb sync` sends it.

`WANDB_MODE=online` sends it while it trains, to the account that `wandb login` knows.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.tracking.description import Report, RunDescription
from pipeline.tracking.names import title
from pipeline.tracking.tracker import TRACKERS, TrackerKind
from shards.format.files import write_atomically
from shards.format.names import as_text

_SENT = "sent.json"
_STEP = "images_seen"


class WandbTracker:
    """One run of W&B, in as many offline folders as the run has calls.

    Its steps only ever grow, and it does not say what it has: the last position is kept beside it.

    Args:
        description: Of the run.
        folder: Of the run's own.
    """

    def __init__(self, description: RunDescription, folder: Path) -> None:
        self._description = description
        self._folder = folder
        self._last = -1
        self._names: set[str] = set()
        self._run: Any = None

    def open(self) -> None:
        """Begin the run of this folder, or resume it."""
        import wandb

        if self._run is not None:
            return  # only the network, of which W&B takes care, can fail after a start
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = self._read_sent()
        self._last, self._names = kept["last"], set(kept["names"])
        self._run = wandb.init(
            project=title(self._description.experiment),
            name=title(self._description.name),
            id=kept["run_id"] or secrets.token_hex(4),
            dir=str(self._new_folder()),
            mode=_mode(),
            resume="allow",
            config={as_text(name): _plain(value) for name, value in self._description.parameters.items()},
            notes=as_text("\n".join(f"{name}: {value}" for name, value in self._description.tags.items())),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric=_STEP)
        self._write_sent()

    def _new_folder(self) -> Path:
        """Return a folder of this call: W&B names its own by the second, and two calls may share one."""
        folder = self._folder / f"call-{len(list(self._folder.glob('call-*'))) + 1}"
        folder.mkdir()
        return folder

    def _read_sent(self) -> dict[str, Any]:
        path = self._folder / _SENT
        return json.loads(path.read_text()) if path.is_file() else {"run_id": None, "last": -1, "names": []}

    def _write_sent(self) -> None:
        kept = {"run_id": self._run.id, "last": self._last, "names": sorted(self._names)}
        write_atomically(self._folder / _SENT, json.dumps(kept).encode())

    def has(self, name: str, images_seen: int) -> bool:
        """Return whether W&B has a value of a metric at a position, or one later than it."""
        return images_seen < self._last or (images_seen == self._last and name in self._names)

    def send(self, reports: Sequence[Report]) -> None:
        """Write numbers."""
        for report in reports:
            self._run.log({as_text(name): value for name, value in report.values.items()} | {_STEP: report.images_seen})
            self._names = set(report.values) | (self._names if report.images_seen == self._last else set())
            self._last = report.images_seen
        if reports:
            self._write_sent()

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Write a picture."""
        import wandb

        self._run.log({as_text(name): wandb.Image(image), _STEP: images_seen})

    def file(self, path: Path) -> None:
        """Keep a file with the run."""
        self._run.save(str(path.resolve()), base_path=str(path.resolve().parent), policy="now")

    def end(self, status: str, unix_s: float | None = None) -> None:
        """Close the run; W&B knows success and failure."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)


def _plain(value: Any) -> Any:
    return as_text(value) if isinstance(value, str) else value


def _mode() -> Any:
    return os.environ.get("WANDB_MODE", "offline")


TRACKERS.add(TrackerKind("wandb", WandbTracker, package="wandb"))

"""A run for Weights & Biases, written offline into the run folder; `wandb sync` sends it.

`WANDB_MODE=online` sends it while it trains, to the account that `wandb login` knows.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from pipeline.tracking.description import Report, RunDescription
from pipeline.tracking.names import project_name, title
from pipeline.tracking.tracker import TRACKERS, TrackerKind
from shards.format.documents import read_document
from shards.format.files import write_atomically
from shards.format.names import as_text
from shards.schema import Pattern, Range, SchemaError

_LOG = logging.getLogger(__name__)
_SENT = "sent.json"
_MAX_SENT_BYTES = 1 << 22
_STEP = "images_seen"


@dataclass(frozen=True)
class _Sent:
    """What this run of W&B has: kept beside it, as W&B does not say."""

    run_id: Annotated[str, Pattern(r"[a-z0-9]{1,64}", "the ID of a run of W&B")] | None = None
    last: Annotated[int, Range(-1)] = -1
    names: tuple[str, ...] = ()


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
        self._last, self._names = kept.last, set(kept.names)
        self._run = wandb.init(
            project=project_name(self._description.experiment),
            name=title(self._description.name),
            id=kept.run_id or secrets.token_hex(4),
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

    def _read_sent(self) -> _Sent:
        try:
            return read_document(self._folder / _SENT, _Sent, _MAX_SENT_BYTES)
        except FileNotFoundError:
            return _Sent()
        except (OSError, SchemaError) as error:
            _LOG.warning("%s; W&B gets this run as a new one", error)
            return _Sent()

    def _write_sent(self) -> None:
        kept = _Sent(self._run.id, self._last, tuple(sorted(self._names)))
        write_atomically(self._folder / _SENT, json.dumps(asdict(kept)).encode())

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

"""The contract of a tracker, and the list of those that exist.

A tracker is a view of a run: the run folder has everything, and a tracker is brought up to date with it, by the run or
afterwards. Adding one is a file with a class that `TRACKERS` names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.errors import ConfigError
from pipeline.registry import Registry
from pipeline.tracking.description import Report, RunDescription


class Tracker(Protocol):
    """One destination of a run. Any call may raise; what failed is tried again after `open`."""

    def open(self) -> None:
        """Find or create the run there, and what it has of it."""
        ...

    def has(self, name: str, images_seen: int) -> bool:
        """Return whether it has a value of a metric at a position."""
        ...

    def send(self, reports: Sequence[Report]) -> None:
        """Take numbers that it does not have."""
        ...

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        """Take an (H, W, 3) uint8 picture; those of one name at several positions are one series."""
        ...

    def file(self, path: Path) -> None:
        """Take a file; one of the same name is replaced."""
        ...

    def end(self, status: str, unix_s: float | None = None) -> None:
        """Mark the run as FINISHED, KILLED or FAILED, now or at a time."""
        ...


@dataclass(frozen=True)
class TrackerKind:
    """One entry of `TRACKERS`.

    Attributes:
        name: As configurations name it.
        create: Builds it from a description, and a folder of its own inside the run's.
        package: What has to be installed for it, beside this project.
        check: Refuses settings of this machine that cannot be meant; see `check_trackers`.
    """

    name: str
    create: Callable[[RunDescription, Path], Tracker]
    package: str | None = None
    check: Callable[[], None] = lambda: None


TRACKERS: Registry[TrackerKind] = Registry(
    "tracker",
    modules={
        "mlflow": "pipeline.tracking.mlflow_tracker",
        "tensorboard": "pipeline.tracking.tensorboard_tracker",
        "wandb": "pipeline.tracking.wandb_tracker",
    },
)


def check_trackers(names: Sequence[str]) -> None:
    """Check that a run can use the trackers that its configuration names.

    Raises:
        ConfigError: One is unknown, or its package is not installed.
        InputError: The address of one cannot be meant.
    """
    for name in names:
        try:
            kind = TRACKERS[name]
        except ConfigError as error:
            raise ConfigError(f"report.trackers: {error}") from error
        if kind.package is not None and importlib.util.find_spec(kind.package) is None:
            raise ConfigError(
                f"report.trackers has {name!r}, which needs the package {kind.package}; pip install {kind.package}, "
                "or remove it"
            )
        kind.check()

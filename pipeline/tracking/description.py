"""What a tracker is given: a run's description, and its reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pipeline.errors import saving
from shards.format.documents import read_document
from shards.format.files import write_atomically
from shards.schema import Range, SchemaError

_FILE = "run.json"
_MAX_BYTES = 1 << 26
LATEST_UNIX_S = 2.0**37
"""In the year 6325. Of a later time, or one before 1970, trackers refuse every number."""


@dataclass(frozen=True)
class Report:
    """Numbers at a position of a run.

    Attributes:
        images_seen: The position.
        values: By name.
        unix_s: When they were measured; None where that is not recorded.
    """

    images_seen: int
    values: Mapping[str, float]
    unix_s: float | None = None


@dataclass(frozen=True)
class TrackedDataset:
    """A dataset that a run trains on.

    Attributes:
        name: For people.
        digest: Of its manifest: names it down to the last byte.
        source: Folder or URL.
        facts: Counts and settings.
    """

    name: str
    digest: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunDescription:
    """What is known about a run before its first step.

    Attributes:
        experiment: The runs that it is shown among.
        name: Of the run.
        parameters: Its configuration, flat.
        tags: Further facts, as text.
        datasets: What it trains on.
        started_unix_s: When its first call began; None: now.
    """

    experiment: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[TrackedDataset] = ()
    started_unix_s: Annotated[float, Range(0, LATEST_UNIX_S)] | None = None


def keep_description(folder: Path, description: RunDescription) -> RunDescription:
    """Keep a description beside what waits for the trackers, so that it can be sent after the run.

    Args:
        folder: The run's `tracking` folder.
        description: It.

    Returns:
        It as it is read later, so that a run looks the same whenever it is sent.

    Raises:
        SaveError: The disk is full.
    """
    path = folder / _FILE
    with saving(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(asdict(description), default=str, indent=1) + "\n").encode())
    return read_description(folder) or description


def read_description(folder: Path) -> RunDescription | None:
    """Return the description in a run's `tracking` folder; None where there is none, or a damaged one."""
    try:
        return read_document(folder / _FILE, RunDescription, _MAX_BYTES)
    except (OSError, SchemaError):
        return None

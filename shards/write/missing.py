"""Which tars of a dataset remain to be written. The files decide, not what a worker reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from shards.errors import ShardError
from shards.format.sidecars import ShardEntry, find_all_finished
from shards.format.storage import StoragePath


class TarTask(Protocol):
    """One tar to write."""

    @property
    def name(self) -> str:
        """Name of the tar, without suffix."""
        ...

    @property
    def header(self) -> Mapping[str, Any]:
        """Header of its sidecar: identifies what the tar is made from."""
        ...


T = TypeVar("T", bound=TarTask)


def finished_entries(folder: StoragePath, tasks: Sequence[TarTask]) -> dict[str, ShardEntry]:
    """Return the entries of those tars that are finished already, by name."""
    return find_all_finished(folder, {task.name: task.header for task in tasks})


def missing_tasks(tasks: Sequence[T], entries: Mapping[str, ShardEntry]) -> list[T]:
    """Return the tasks whose tars are not among the finished ones."""
    return [task for task in tasks if task.name not in entries]


def require_all(folder: StoragePath, tasks: Sequence[TarTask]) -> dict[str, ShardEntry]:
    """Return the entries of all tars, once they are written.

    Raises:
        ShardError: A tar was written and is gone or changed: no manifest may name it.
    """
    entries = finished_entries(folder, tasks)
    gone = missing_tasks(tasks, entries)
    if gone:
        lost = min(task.name for task in gone)
        raise ShardError(f"{folder / lost} was written and is gone or changed; run the same command again")
    return entries

"""What the writers need of the program around them: a parallel map, a progress display, a place for messages.

The library knows no Ray: `jobs/` passes a Ray session's map, tests and small scripts use `SERIAL`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shards.format.storage import StoragePath

T = TypeVar("T")
R = TypeVar("R")


class ParallelMap(Protocol):
    """Calls a function on every item, somewhere, and yields (item, result) in order of completion."""

    def __call__(
        self, function: Callable[[T], R], items: Iterable[T], *, num_gpus: float = 0.0, memory_bytes: int = 0
    ) -> Iterator[tuple[T, R]]:
        """Run the tasks.

        Args:
            function: Of an importable module; idempotent, since a task may run again after its worker died.
            items: Small and picklable.
            num_gpus: GPUs per task; fractions share one.
            memory_bytes: Memory per task; a task starts only where that much is free.
        """
        ...


class Progress(Protocol):
    """Counts the finished work of one stage."""

    num_rejects: int

    def advance(self, count: int, *, size_bytes: int = 0, num_rejects: int = 0) -> None:
        """Count units done since the last call, the bytes written for them, and how many of them were rejected."""
        ...


class ProgressDisplay(Protocol):
    """Opens the display of one stage."""

    def __call__(
        self, description: str, total: int, unit: str, *, status: StoragePath | None = None
    ) -> AbstractContextManager[Progress]:
        """Open it.

        Args:
            description: The stage, such as "writing shards".
            total: Number of units.
            unit: Plural of what is counted, such as "images".
            status: JSON file to keep up to date for other programs; None for none.
        """
        ...


@dataclass(frozen=True)
class Executor:
    """Where tasks run and how their progress is reported."""

    map: ParallelMap
    progress: ProgressDisplay
    say: Callable[[str], None]
    """Prints one message for the user."""


@dataclass
class _SilentProgress:
    num_rejects: int = 0

    def advance(self, count: int, *, size_bytes: int = 0, num_rejects: int = 0) -> None:
        self.num_rejects += num_rejects


def _serial_map(
    function: Callable[[T], R], items: Iterable[T], *, num_gpus: float = 0.0, memory_bytes: int = 0
) -> Iterator[tuple[T, R]]:
    return ((item, function(item)) for item in items)


def _silent(
    description: str, total: int, unit: str, *, status: StoragePath | None = None
) -> AbstractContextManager[Progress]:
    return contextlib.nullcontext(_SilentProgress())


SERIAL = Executor(_serial_map, _silent, lambda message: None)
"""Runs every task in this process and reports nothing."""

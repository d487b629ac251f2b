"""The contract of a degradation operation: what it reads from a recipe, what it draws, and from which stream.

This half of an operation is free of torch, because recipes are parsed where torch is not installed. The other half,
`pipeline.degrade.step_batch.Application`, applies what was drawn to a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from shards.degradation.draws import Stream

MAX_STAGES = 2


class Step(ABC):
    """Parameters of one operation, drawn for one image: a frozen dataclass of plain numbers that checks itself."""

    application: ClassVar[str]
    """Name of the `Application` that applies it; several operations may draw the same kind of step."""

    @abstractmethod
    def caption(self) -> str:
        """One short caption; empty where the step leaves the image unchanged."""

    def size_after_px(self, size_px: int) -> int:
        """Side of the image after the step."""
        return size_px

    def batch_key(self) -> object:
        """What all images of a batch must share at this step."""
        return None


@dataclass(frozen=True)
class Place:
    """Where in a degradation an operation runs.

    Attributes:
        stream: The operation's own draws at this place.
        size_px: Side of the image before it; images are square.
        lq_px: Side of the low-quality canvas in the end.
    """

    stream: Stream
    size_px: int
    lq_px: int


@dataclass(frozen=True)
class Operation:
    """One operation; its file registers one of these.

    Attributes:
        name: As in a stage's `order`, and the name of its table.
        table: Frozen dataclass of the table's keys; unknown and missing keys are refused, `__post_init__` checks
            the values.
        streams: Number of its random stream in the first and in the second stage. Numbers are part of the data
            format: a new operation takes unused ones, which shifts no other operation's draws; none is ever
            renumbered or reused.
        draw: Draws the step from the table. It must draw a step even where nothing happens, so that all images of a
            batch have the same sequence of steps.
    """

    name: str
    table: type[Any]
    streams: tuple[int, int]
    draw: Callable[[Any, Place], Step]

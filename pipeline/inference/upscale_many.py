"""Upscales image files two at a time: while one is in the network, another is decoded, or encoded and written."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, nn

from pipeline.inference.device import autocast
from pipeline.inference.upscale_files import upscale_file
from shards.errors import InputError
from shards.format.rejects import PhotoNote

if TYPE_CHECKING:
    from pipeline.inference.named_model import NamedModel

_NUM_AT_ONCE = 2
Outcome: TypeAlias = "Sequence[PhotoNote] | InputError"
"""Notes on an image file that was upscaled, or why it was not."""


class _StoppedError(Exception):
    """Nobody wants the rest of the pictures."""


class _OneAtATime(nn.Module):
    """A generator that takes one tile at a time, whichever thread brings it."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self._generator = generator
        self._turn = threading.Lock()
        self.is_over = False

    def forward(self, lq: Tensor) -> Tensor:
        with self._turn:
            if self.is_over:
                raise _StoppedError
            return self._generator(lq)


def upscale_files(
    model: NamedModel, pairs: Iterable[tuple[Path, Path]], *, tile_px: int, overlap_px: int, precision: str
) -> Generator[tuple[Path, Outcome], None, None]:
    """Upscale image files as `upscale_file` does; rows of tiles of two are in memory.

    Args:
        model: On its device.
        pairs: Sources and targets.
        tile_px: Largest side of a tile in LQ px.
        overlap_px: Overlap of neighbouring tiles in LQ px.
        precision: Of the network: float32, bf16 or fp16.

    Yields:
        Each source with its outcome, in order. A file that is no image, or too large for memory, costs itself alone.

    Raises:
        CheckpointError: The output holds a NaN or infinite value.
        OutputError: A picture cannot be written: the disk is full, or the folder is gone.
    """
    turns = _OneAtATime(model.generator)
    shared, device = replace(model, generator=turns), next(turns.parameters()).device

    def upscale_one(source: Path, target: Path) -> Outcome:
        try:
            with autocast(device, precision):  # of this thread alone
                return upscale_file(shared, source, target, tile_px=tile_px, overlap_px=overlap_px)
        except InputError as error:
            return error

    started: deque[tuple[Path, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
        try:
            for source, target in pairs:
                started.append((source, pool.submit(upscale_one, source, target)))
                if len(started) > _NUM_AT_ONCE:
                    yield _first(started)
            while started:
                yield _first(started)
        finally:
            turns.is_over = True
            pool.shutdown(cancel_futures=True)


def _first(started: deque[tuple[Path, Future[Outcome]]]) -> tuple[Path, Outcome]:
    source, outcome = started.popleft()
    return source, outcome.result()

"""Background writing of checkpoints: training pauses for a copy to host memory, a thread writes it to disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.checkpoint.store import Checkpoint, CheckpointStore
from pipeline.errors import SaveError


class BackgroundWriter:
    """Writes one checkpoint at a time from a thread. Used on the leader; idle on the other ranks.

    Args:
        store: Destination; must not be saved to by anyone else meanwhile.
        when_saved: Called by the thread after every checkpoint.
    """

    def __init__(self, store: CheckpointStore, when_saved: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._when_saved = when_saved
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._failure: SaveError | None = None
        self._host = _HostCopy()

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint to host memory and start to write it; its tensors may change afterwards.

        Waits for the previous checkpoint. After a failure nothing more is written.
        """
        self.wait()
        if self._failure is None:
            self._writing = self._thread.submit(self._write, self._host.of(checkpoint))

    def _write(self, checkpoint: Checkpoint) -> None:
        self._store.save(checkpoint)
        self._when_saved()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            with contextlib.suppress(SaveError):
                self._writing.result()
        self._collect()

    @property
    def failure(self) -> SaveError | None:
        """The error of a checkpoint that could not be written, as soon as it is known; does not wait."""
        self._collect()
        return self._failure

    def _collect(self) -> None:
        if self._writing is None or not self._writing.done():
            return
        error, self._writing = self._writing.exception(), None
        if isinstance(error, SaveError):
            self._failure = error
        elif error is not None:
            raise error

    @contextlib.contextmanager
    def closing(self) -> Iterator[BackgroundWriter]:
        """Return a context at whose end, however it ends, a write in progress is finished."""
        try:
            yield self
        finally:
            self._thread.shutdown(wait=True)


class _HostCopy:
    """Host memory for one checkpoint, allocated once and reused, because fresh pages cost page faults."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def of(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with tensors in this memory, valid until the next call."""
        tensors = {group: self._copy_group(group, named) for group, named in checkpoint.tensors.items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies below were only queued
        return replace(checkpoint, tensors=tensors)

    def _copy_group(self, group: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self._buffer(group, name, tensor).copy_(tensor, non_blocking=True) for name, tensor in named.items()
        }

    def _buffer(self, group: str, name: str, like: Tensor) -> Tensor:
        buffer = self._buffers.get((group, name))
        if buffer is None or buffer.shape != like.shape or buffer.dtype != like.dtype:
            # Pinned, so that a device copies without waiting in between.
            buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            self._buffers[group, name] = buffer
        return buffer

"""Requests to stop: SIGTERM, SIGUSR1 (Slurm's warning), Ctrl-C or the death of the launcher set a flag.

The loop reads it between steps, the validation between images; the run then saves a checkpoint and exits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from pipeline.runtime import launch

EXIT_PREEMPTED = 75
"""Exit code of a run that saved and exited on request; a scheduler queues it again (EX_TEMPFAIL)."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_SAME_KEYPRESS_S = 2.0


class StopRequest:
    """Whether this process was asked to save and exit. A second, later Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._is_set = False
        self._interrupted_s = float("inf")
        # accelerate's launcher of one process dies of SIGTERM, and every launcher of SIGUSR1 by default. The process is
        # then orphaned: nothing waits for its result, and the next call would train beside it.
        self._launcher = os.getppid() if launch.has_launcher() else None

    def __call__(self) -> bool:
        """Return whether a signal arrived or the launcher is gone."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self._is_set = True
        return self._is_set

    def listen(self) -> None:
        """Install the handlers; call it from the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Forked processes inherit the handler; only the process that trains may act on it.
        if os.getpid() != self._owner:
            return
        if number == signal.SIGINT:
            # A terminal sends one keypress to all processes, and a launcher may hand on its own.
            if time.monotonic() - self._interrupted_s > _SAME_KEYPRESS_S:
                raise KeyboardInterrupt
            self._interrupted_s = min(self._interrupted_s, time.monotonic())
        self._is_set = True


@contextlib.contextmanager
def children_do_not_hear() -> Iterator[None]:
    """Make processes started in the block ignore requests to stop.

    A launcher sends them to the whole group, and a loader process that died of one would fail the step after which the
    run saves. Loader processes end by themselves when the training process is gone.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

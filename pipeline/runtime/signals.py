"""Asked to leave: SIGTERM and SIGUSR1 (Slurm's warning) and Ctrl-C set a flag that the loop reads between steps."""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_PREEMPTED = 75
"""Exit code of a run that saved and left because it was asked to; a scheduler queues it again (EX_TEMPFAIL)."""


class StopRequest:
    """Whether this process was asked to save and leave. A second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._is_set = False

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self._is_set

    def listen(self) -> None:
        """Install the handlers; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Forked loader workers inherit the handler; only the process that trains may act on it.
        if os.getpid() != self._owner:
            return
        if self._is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._is_set = True

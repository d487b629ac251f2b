"""Messages and progress for the user: on standard error, so that standard output holds only results."""

from __future__ import annotations

import collections
import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from shards.format.documents import canonical_json
from shards.format.files import write_atomically
from shards.format.storage import StoragePath
from shards.secrets import without_secrets

_PLAIN_INTERVAL_S = 5.0
_STATUS_INTERVAL_S = 2.0
_RATE_WINDOW_S = 20.0


def say(message: str) -> None:
    """Print one message to standard error, without the secrets of URLs."""
    sys.stderr.write(without_secrets(message, os.environ.get("MLFLOW_TRACKING_URI", "")) + "\n")
    sys.stderr.flush()


class Progress:
    """A bar on a terminal, a plain line every few seconds elsewhere, and optionally a status file.

    Use it as a context manager and call `advance` as work is done.
    """

    def __init__(
        self, description: str, total: int, unit: str, *, start: int = 0, status: StoragePath | None = None
    ) -> None:
        """Begin a stage.

        Args:
            description: What is being done, such as "writing shards".
            total: How many units there are.
            unit: What is counted, in the plural, such as "images".
            start: Units that an earlier call has already done.
            status: JSON file to keep up to date for other programs; None for none.
        """
        self.description = description
        self.total = total
        self.unit = unit
        self._start = start
        self.done = start
        self.size_bytes = 0
        self.num_rejects = 0
        self._status = status
        self._start_s = time.monotonic()
        self._plain_s = self._status_s = self._start_s
        # Recent (time, units, bytes): the rest is estimated from the recent rate, not from the mean since the start.
        self._recent = collections.deque([(self._start_s, start, 0)])
        self._bar = _make_bar() if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        """Show the stage."""
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, facts=self.facts())
        self._write_status()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stage with its last numbers."""
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            say(self._line())
        self._write_status()

    def advance(self, count: int, *, size_bytes: int = 0, num_rejects: int = 0) -> None:
        """Count finished work.

        Args:
            count: Units done since the last call.
            size_bytes: Bytes written for them.
            num_rejects: How many of them were rejected.
        """
        self.done += count
        self.size_bytes += size_bytes
        self.num_rejects += num_rejects
        now_s = time.monotonic()
        self._recent.append((now_s, self.done, self.size_bytes))
        while len(self._recent) > 2 and self._recent[1][0] < now_s - _RATE_WINDOW_S:
            self._recent.popleft()
        if self._bar is not None:
            self._bar.update(self._task, description=self.description, completed=self.done, facts=self.facts())
        elif now_s - self._plain_s >= _PLAIN_INTERVAL_S:
            self._plain_s = now_s
            say(self._line())
        if now_s - self._status_s >= _STATUS_INTERVAL_S:
            self._status_s = now_s
            self._write_status()

    def facts(self) -> str:
        """Return rate, time left and rejects in words."""
        is_running = self._recent[0][1] < self.done < self.total
        since_s, done, size_bytes = self._recent[0] if is_running else (self._start_s, self._start, 0)
        now_s = time.monotonic()
        elapsed_s = max(now_s - since_s, 1e-3)
        rate = (self.done - done) / elapsed_s
        parts = [f"{rate:.1f} {self.unit}/s"]
        if self.size_bytes:
            parts.append(f"{(self.size_bytes - size_bytes) / 1e6 / elapsed_s:.1f} MB/s")
        parts.append(f"{_clock((self.total - self.done) / rate)} left" if is_running else _clock(now_s - self._start_s))
        if self.num_rejects:
            parts.append(f"{self.num_rejects} rejected")
        return ", ".join(parts)

    def _line(self) -> str:
        return f"{self.description}: {self.done}/{self.total} {self.unit}, {self.facts()}"

    def _write_status(self) -> None:
        if self._status is None:
            return
        status = {
            "stage": self.description,
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "size_bytes": self.size_bytes,
            "num_rejects": self.num_rejects,
            "elapsed_s": round(time.monotonic() - self._start_s, 1),
            "updated_unix_s": round(time.time(), 1),
        }
        # Not synchronised: on some file systems that makes every other writer wait for the disk.
        write_atomically(self._status, canonical_json(status) + b"\n", durable=False)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["facts"]), style="progress.data.speed")


def _make_bar() -> RichProgress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Count())
    return RichProgress(*columns, console=Console(stderr=True))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

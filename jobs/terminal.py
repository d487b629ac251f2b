"""How jobs speak to people: progress, and the one place where errors become a message and an exit code.

Exit codes: 0 done; 1 faults were found, or something outside failed; 2 bad input; 130 and 143 stopped by a
signal. Messages and progress go to standard error, so that results on standard output stay clean.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from pipeline.errors import RunStoppedError, TrackingError
from shards.errors import InputError
from shards.format.documents import canonical_json
from shards.format.files import write_atomically
from shards.format.storage import StoragePath
from shards.secrets import without_secrets

EXIT_FAULTS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_PLAIN_INTERVAL_S = 5.0
_STATUS_INTERVAL_S = 2.0
_RATE_WINDOW_S = 20.0


class JobStoppedError(Exception):
    """A job ends early, in good order; carries its message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_job(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Run a job's `main` and turn what people can act on into one message.

    Args:
        main: Takes the arguments without the program's name, returns an exit code.
        argv: Arguments; those of the process when None.

    Returns:
        The exit code. Errors of our own keep their traceback.
    """
    _show_no_secrets()
    try:
        with _heeding_sigterm():
            return main(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        say(f"error: {error}")
        return EXIT_BAD_INPUT
    except (RunStoppedError, TrackingError) as error:
        say(f"error: {error}")
        return EXIT_FAULTS
    except OSError as error:
        if "://" not in str(error.filename):
            raise  # a local file that a job does not expect to fail on is a fault of ours
        say(
            f"error: {error.filename} cannot be used: {error.strerror}\n"
            "  Check the address, the credentials (AWS_* for S3) and that the store runs, then rerun the same command"
        )
        return EXIT_FAULTS
    except JobStoppedError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; rerun the same command to resume")
        return EXIT_INTERRUPTED
    except _Terminated:
        say("stopped by SIGTERM; rerun the same command to resume")
        return EXIT_TERMINATED


class _Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, it passes handlers of errors, and temporary files are removed."""


@contextlib.contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, unless a job installs a handler of its own in the block."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # forked processes inherit the handler
            raise _Terminated
        os._exit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)


def say(message: str) -> None:
    """Print one message to standard error, without the secrets of URLs."""
    sys.stderr.write(without_secrets(message, os.environ.get("MLFLOW_TRACKING_URI", "")) + "\n")
    sys.stderr.flush()


def _show_no_secrets() -> None:
    """Let warnings and the traceback of an error of our own go through `say` too."""
    sys.excepthook = show_traceback
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter())


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error as Python does, without the secrets of URLs."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip())


class LogFormatter(logging.Formatter):
    """Shows log records as `say` does."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return without_secrets(super().format(record), os.environ.get("MLFLOW_TRACKING_URI", ""))


def end_with_faults(faults: Sequence[str], total: int, unit: str) -> int:
    """Print what could not be used, after all else; return the exit code.

    Args:
        faults: One text each; none is success.
        total: How many units the job went through.
        unit: Plural of what is counted.
    """
    if not faults:
        return 0
    say(f"error: {len(faults)} of {total} {unit} could not be used:\n  " + "\n  ".join(faults))
    return EXIT_FAULTS


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
            unit: Plural of what is counted, such as "images".
            start: Units that an earlier call did already.
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
        # (time, units, bytes) of late: what is left takes as long as what was done lately, not as all since the start.
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
            size_bytes: Bytes they made.
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
        # Not synchronised: on some file systems that makes every writer beside it wait for the disk.
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

"""Turns errors into a message and an exit code, for every job.

Exit codes: 0 done; 1 faults were found, or something outside failed; 2 bad input; 130 and 143 stopped by a
signal.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import NoReturn, TypeAlias

from pipeline.errors import RunStoppedError, TrackingError
from pipeline.progress import say
from pipeline.runtime.signals import EXIT_PREEMPTED
from shards.errors import InputError
from shards.secrets import without_secrets

Handler: TypeAlias = Callable[[int, FrameType | None], None]

_NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

EXIT_FAULTS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class JobStoppedError(Exception):
    """A job stopped early and cleanly; carries its message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_job(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Run a job's `main` and turn every error that a user can act on into one message.

    Args:
        main: Takes the arguments without the program's name, returns an exit code.
        argv: Arguments; those of the process when None.

    Returns:
        The exit code. Bugs keep their traceback.
    """
    _show_no_secrets()
    _show_any_text()
    try:
        with handling_sigterm(_terminator()):
            return main(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        say(f"error: {error}")
        return EXIT_BAD_INPUT
    except (RunStoppedError, TrackingError) as error:
        say(f"error: {error}")
        return EXIT_FAULTS
    except OSError as error:
        return _end_of_unusable_file(error)
    except JobStoppedError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; rerun the same command to resume")
        return EXIT_INTERRUPTED
    except _Terminated:
        say("stopped by SIGTERM; rerun the same command to resume")
        return EXIT_TERMINATED


def _end_of_unusable_file(error: OSError) -> int:
    """Say what is wrong with an address, or a file of others, and return the exit code; any other failure is a bug."""
    if "://" in str(error.filename):
        say(
            f"error: {error.filename} cannot be used: {error.strerror}\n"
            "  Check the address, the credentials (AWS_* for S3) and that the store runs, then rerun the same command"
        )
        return EXIT_FAULTS
    if error.filename is None or error.errno not in _NOT_PERMITTED:
        raise error
    say(
        f"error: {error.filename} cannot be used: {error.strerror}; give this user the permission, or name another path"
    )
    return EXIT_BAD_INPUT


def leave(code: int) -> NoReturn:
    """End a process that may be one of several, with a job's exit code."""
    _end_failed_rank(code)
    sys.exit(code)


def _end_failed_rank(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if "RANK" in os.environ and code not in (0, EXIT_PREEMPTED):
        # In a destructor it would wait for the others, which the launcher ends.
        os._exit(code)


class _Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, it passes error handlers, and temporary files are removed."""


def _terminator() -> Handler:
    """Return a handler that raises `_Terminated` in this process."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:  # forked processes inherit the handler
            raise _Terminated
        os._exit(EXIT_TERMINATED)

    return stop


@contextlib.contextmanager
def handling_sigterm(handler: Handler) -> Iterator[None]:
    """Handle SIGTERM in this block, in the main thread, unless another handler is installed inside it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python installs handlers in the main thread only
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, before)


def _show_no_secrets() -> None:
    """Route warnings and the traceback of a bug through `say` too."""
    sys.excepthook = _end_with_traceback
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter())


def _show_any_text() -> None:
    """Let `print` escape what the terminal's encoding lacks, and bytes of a path that are no text, as `say` does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_with_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error as Python does, without the secrets of URLs, before Python ends the process."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip())
    _end_failed_rank(EXIT_FAULTS)


class LogFormatter(logging.Formatter):
    """Shows log records as `say` does."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return without_secrets(super().format(record), os.environ.get("MLFLOW_TRACKING_URI", ""))


def show_logs() -> None:
    """Show the warnings of all libraries, and the logs of `pipeline`, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def end_with_faults(faults: Sequence[str], total: int, unit: str) -> int:
    """Print what could not be used, after everything else; return the exit code.

    Args:
        faults: One text each; success if empty.
        total: Number of units that the job processed.
        unit: What is counted, in the plural.
    """
    if not faults:
        return 0
    say(f"error: {len(faults)} of {total} {unit} could not be used:\n  " + "\n  ".join(faults))
    return EXIT_FAULTS

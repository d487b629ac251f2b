"""Errors of the pipeline; see `shards.errors.InputError` for how jobs show them."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from shards.errors import ConfigError as ConfigError
from shards.errors import InputError


class CheckpointError(InputError):
    """A checkpoint or weight file is missing, damaged, or of another network."""


class RunStoppedError(RuntimeError):
    """A run cannot continue; its checkpoints are intact, and the same command resumes from them."""


class NonFiniteError(RunStoppedError):
    """Loss or gradient stayed NaN or infinite for too many steps in a row."""


class DamagedDataError(RunStoppedError):
    """More samples are damaged than the configuration allows."""


class RankLostError(RunStoppedError):
    """Another rank died or hangs; names it."""


class SaveError(RunStoppedError):
    """A checkpoint or record could not be written: the disk is full, or the folder is gone."""


class OutputError(RunStoppedError):
    """A job cannot write its output: the disk is full, or the folder is gone."""


class TrackingError(RuntimeError):
    """A tracker is unreachable, or does not know a run; the files on disk are complete."""


class RefusedError(TrackingError):
    """A tracker does not accept a value for what it is; another attempt would not help."""


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failed write in this block into a `SaveError` that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = (
            "give this user the permission to write it" if isinstance(error, PermissionError) else "free some space"
        )
        raise SaveError(
            f"{path} could not be written: {error.strerror or error}\n"
            f"  the checkpoints are untouched; {remedy} and rerun the same command to resume"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device's or the machine's memory ran out."""
    # torch's own class, by its name so that torch need not be imported; for the CPU torch raises a plain RuntimeError.
    is_torchs = type(error).__name__ == "OutOfMemoryError"
    return is_torchs or isinstance(error, MemoryError) or "allocate memory" in str(error)


def refuse(faults: Iterable[str | None]) -> None:
    """Raise all faults of one section of a configuration at once; None is not a fault.

    Raises:
        ConfigError: There is at least one.
    """
    found = [fault for fault in faults if fault]
    if found:
        raise ConfigError("; ".join(found))


def positive(**values: float) -> list[str]:
    """Return a fault for each value that is not above 0."""
    return [f"{name}={value} must be above 0" for name, value in values.items() if not value > 0]


def not_negative(**values: float) -> list[str]:
    """Return a fault for each value that is below 0."""
    return [f"{name}={value} must be 0 or above" for name, value in values.items() if not value >= 0]

"""Where a job may write: never over one of its inputs, and over unrelated files only if the user allows it.

The one place where every job that writes files checks its outputs, before any work.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shards.errors import InputError
from shards.format.storage import StoragePath, open_regular

_SHOWN_FAULTS = 5


def check_output_files(
    outputs: Sequence[Path], inputs: Iterable[Path], *, is_own: Callable[[Path], bool], overwrite: bool
) -> None:
    """Check the files that a job is about to write.

    Args:
        outputs: In the order of writing; they may exist.
        inputs: Files that the job reads, and folders that it lists.
        is_own: Whether an existing file is an earlier output of the same job.
        overwrite: Replace other existing files as well; inputs are never replaced.

    Raises:
        InputError: An output is an input by whatever path or link, is a folder, exists already, or is given twice.
    """
    read = {_identity(path) for path in inputs if path.exists()}
    places = Counter(path.resolve() for path in outputs)
    faults = [f"{path} would be written twice" for path in dict.fromkeys(outputs) if places[path.resolve()] > 1]
    for path in dict.fromkeys(outputs):
        # Resolved first: `new/../photos` does not exist as long as `new` does not, and is `photos` thereafter.
        if not path.resolve().exists():
            continue
        if _identity(path) in read:
            faults.append(f"{path} would be replaced by its own output")
        elif path.is_dir():
            faults.append(f"{path} is a folder")
        elif not overwrite and not is_own(path):
            faults.append(f"{path} exists and is not an output of this job; --overwrite replaces it")
    if faults:
        more = f"\n  and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        listed = "\n  ".join(faults[:_SHOWN_FAULTS])
        raise InputError(f"give another output, nothing was written:\n  {listed}{more}")


def check_output_folder(folder: StoragePath, inputs: Iterable[StoragePath], own: re.Pattern[str]) -> None:
    """Check a folder that a job fills; it may exist.

    Args:
        folder: Where the job writes.
        inputs: Folders that the job reads.
        own: Matches the names of the job's files.

    Raises:
        InputError: The folder is an input by whatever path or link, or holds files of something else.
    """
    for path in inputs:
        if _is_same_folder(folder, path):
            raise InputError(
                f"{folder} is an input of this job, whose files would be replaced; give another output folder"
            )
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if not own.fullmatch(name)]
    if others:
        raise InputError(
            f"output folder {folder} holds {len(others)} other file(s), such as {others[0]}; "
            "choose a new or empty folder"
        )


def head_of(path: Path, num_bytes: int) -> bytes:
    """Return the first bytes of a file, by which a job knows its own; none where it cannot be read."""
    try:
        with open_regular(path) as stream:
            return stream.read(num_bytes)
    except OSError:
        return b""


def _identity(path: Path) -> tuple[int, int]:
    status = path.resolve().stat()
    return status.st_dev, status.st_ino


def _is_same_folder(folder: StoragePath, other: StoragePath) -> bool:
    if isinstance(folder, Path) and isinstance(other, Path):
        return folder.resolve() == other.resolve()
    return str(folder) == str(other)

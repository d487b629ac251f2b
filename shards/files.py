"""Files appear whole or not at all.

A file is written under a temporary name in its own folder, flushed, synchronised, and renamed; a reader, or a
rerun after a crash, sees the old file, the new one, or none. What a killed process leaves is recognised by
its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shards.errors import InputError

_TEMPORARY_SUFFIX = ".sed-tmp"
_READ_SIZE_BYTES = 1 << 20


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block ends without an exception.

    Args:
        path: Final name; its folder must exist. An existing file is replaced.

    Yields:
        The binary stream of the temporary file.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what was there."""
    with open_atomic(path) as stream:
        stream.write(data)


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut; some network file systems cannot synchronise a folder.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_SIZE_BYTES):
            digest.update(block)
    return digest.hexdigest()


def clean_stale(folder: Path) -> int:
    """Remove what killed writers left in a folder; return how many files that were."""
    stale = [path for path in folder.iterdir() if path.name.endswith(_TEMPORARY_SUFFIX)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def check_writable(folder: Path) -> None:
    """Check that files can be made in a folder, existing or not, and leave no trace of the check.

    Raises:
        InputError: Nothing can be written there.
    """
    nearest = folder
    while not nearest.exists() and nearest.parent != nearest:
        nearest = nearest.parent
    probe = nearest / f".probe-{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder; got {error.strerror or error}; at {folder}"
            f"{'' if nearest == folder else f' (nearest existing: {nearest})'}; "
            "choose a folder that you may write to, or free the disk"
        ) from error

"""Atomic writes: files appear complete or not at all.

A file is written under a temporary name in its own folder, flushed, synchronised, and renamed; a reader, or a
rerun after a crash, sees the old file, the new one, or none. Leftovers of a killed process are recognised by their
name. An object is spooled to an anonymous local file and written in one PUT.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from shards.errors import InputError
from shards.format.names import MAX_NAME_BYTES
from shards.format.remote import RemotePath, sha256
from shards.format.storage import StoragePath, blocks

_TEMPORARY_SUFFIX = ".sed-tmp"


@contextlib.contextmanager
def open_atomic(path: StoragePath, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block ends without an exception.

    Args:
        path: Final name; its folder must exist. An existing file is replaced.
        durable: Wait until it is on disk. If False, a power cut may leave a truncated local file under its final name.

    Yields:
        The binary stream of the temporary file.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryFile() as spool:
            stream = cast(BinaryIO, spool)
            yield stream
            path.publish(stream)
    else:
        with _open_renamed(path, durable) as stream:
            yield stream


@contextlib.contextmanager
def _open_renamed(path: Path, durable: bool) -> Iterator[BinaryIO]:
    ending = f".{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}"
    temporary = path.parent / f".{fit_name(path.name, reserved_bytes=1 + len(ending))}{ending}"
    try:
        with temporary.open("xb") as stream:
            with contextlib.suppress(OSError):  # storage without locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def fit_name(name: str, *, reserved_bytes: int = 0) -> str:
    """Shorten a derived name to what file systems take; different names stay different.

    Args:
        name: A file's name; its ending is kept.
        reserved_bytes: What the caller adds to it.
    """
    limit = MAX_NAME_BYTES - reserved_bytes
    encoded = os.fsencode(name)
    if len(encoded) <= limit:
        return name
    ending = f"~{hashlib.sha256(encoded).hexdigest()[:16]}{Path(name).suffix[:16]}"
    return encoded[: limit - len(os.fsencode(ending))].decode("utf-8", "ignore") + ending


def write_atomically(path: StoragePath, data: bytes, *, durable: bool = True) -> None:
    """Write a whole file, or leave the old one; see `open_atomic`."""
    with open_atomic(path, durable=durable) as stream:
        stream.write(data)


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that new names survive a power cut where the file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: StoragePath) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return sha256(blocks(path)).hex()


def clean_stale(folder: StoragePath) -> int:
    """Remove the files that killed writers left in a folder; return their number."""
    if isinstance(folder, RemotePath):
        return 0  # a killed writer leaves no object
    stale = [path for path in folder.iterdir() if path.name.endswith(_TEMPORARY_SUFFIX)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def clean_stale_kind(folder: Path, suffix: str) -> int:
    """Remove files of one kind that killed writers left in a folder that others may use at the same time.

    Args:
        folder: Need not exist.
        suffix: End of the finished files' names, such as `.png`; empty: any.

    Returns:
        Number of removed files. Files that a running process is writing are locked by it, and stay.
    """
    pattern = re.compile(rf"\..*{re.escape(suffix)}\.\d+-[0-9a-f]{{8}}{re.escape(_TEMPORARY_SUFFIX)}", re.DOTALL)
    stale = [path for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.is_dir() else []
    return sum(_remove_unlocked(path) for path in stale)


def _remove_unlocked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True


def check_writable(folder: StoragePath) -> None:
    """Check that files can be created in a folder, existing or not, and leave no trace of the check.

    Raises:
        InputError: Nothing can be written there.
    """
    if isinstance(folder, RemotePath):
        _check_store(folder)
        return
    nearest = folder
    while not nearest.exists() and nearest.parent != nearest:
        nearest = nearest.parent
    probe = nearest / _probe_name()
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder; got {error.strerror or error}; at {folder}"
            f"{'' if nearest == folder else f' (nearest existing: {nearest})'}; "
            "choose a folder that you may write to, or free the disk"
        ) from error


def _check_store(folder: RemotePath) -> None:
    probe = folder / _probe_name()
    try:
        write_atomically(probe, b"probe")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the output; got {error.strerror or error}; at {folder}; the bucket must exist, and "
            "this machine and every worker need its credentials and endpoint (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL or ~/.aws for s3://)"
        ) from error


def _probe_name() -> str:
    return f".probe-{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}"

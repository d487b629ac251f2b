"""Which cached tars have the SHA-256 of their names: hashed by one process, believed by the others.

Else a dozen loader processes would hash each tar a dozen times. Who has hashed a tar, or downloaded it, leaves a note
beside it, which states what file that was. It no longer holds when the file changes, nor after a start of the machine:
a power cut may leave other bytes than those that were hashed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from shards.format.files import write_atomically
from shards.format.remote import blocks_of, sha256
from shards.format.sidecars import ShardEntry
from shards.read.private import open_own

_MAX_NOTE_BYTES = 1000
_KNOWN: set[str] = set()
"""Identities of the tars that this process knows to be right."""


def note_of(tar: Path) -> Path:
    """Return the path of a tar's note. Its modification time is the tar's last use."""
    return tar.with_suffix(".checked")


def is_verified(stream: BinaryIO, tar: Path, entry: ShardEntry) -> bool:
    """Return whether an open tar is the entry's; hash it whole if nobody has.

    Raises:
        ShardError: Its note belongs to another user.
    """
    identity = _identity(stream)
    if identity not in _KNOWN and not (_boot() and _read_note(tar) == identity):
        if os.fstat(stream.fileno()).st_size != entry.size_bytes:
            return False
        if sha256(blocks_of(stream)).hex() != entry.sha256:
            return False
        mark_verified(stream, tar)
    _KNOWN.add(identity)
    return True


def mark_verified(stream: BinaryIO, tar: Path) -> None:
    """Note that an open tar, of this path, has the SHA-256 of its name.

    Raises:
        ShardError: Its note belongs to another user.
    """
    identity = _identity(stream)
    _KNOWN.add(identity)
    if _read_note(tar) == identity:
        return
    with contextlib.suppress(OSError):  # without it others hash the tar, no more
        write_atomically(note_of(tar), identity.encode(), durable=False)


def _read_note(tar: Path) -> str:
    try:
        with open_own(note_of(tar)) as stream:
            return stream.read(_MAX_NOTE_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def _identity(stream: BinaryIO) -> str:
    status = os.fstat(stream.fileno())
    # The time of the last change, which nobody can set back, rather than of the last modification.
    return f"{_boot()} {status.st_dev} {status.st_ino} {status.st_size} {status.st_ctime_ns}"


def _boot() -> str:
    """Return what names this start of the machine; nothing where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

"""Pictures and files that a tracker has not received yet: they wait on the disk, in order, and survive the process."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from shards.format.files import fit_name, write_atomically
from shards.format.storage import read_whole

_LOG = logging.getLogger(__name__)
LIMIT_BYTES = 512 << 20
"""Largest size of the pictures that wait for one tracker; the oldest are dropped beyond it."""
_PICTURE = ".png"
_FILE = ".file"
_POSITION_DIGITS = 12
_POSITION = re.compile(r"[0-9]{1,18}")
_MAX_PATH_BYTES = 1 << 16
_RESERVED_BYTES = 60
"""Of a file's name, for the position and the endings."""


@dataclass(frozen=True)
class Waiting:
    """One picture or file that waits.

    Attributes:
        name: Of the picture's series; of the file.
        path: Of the picture in the outbox, or of the file where it was made.
        images_seen: Position of the picture; None for a file.
        entry: What is removed once it has been received.
    """

    name: str
    path: Path
    images_seen: int | None
    entry: Path


class Outbox:
    """What waits for one tracker.

    Args:
        folder: Of its own; need not exist.
        run: Folder of the run. Files outside are not sent: run folders are passed on, and what waits in one that
            somebody else has written could name any file of whoever sends it.
        limit_bytes: See `LIMIT_BYTES`.
    """

    def __init__(self, folder: Path, run: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._run = run
        self._limit_bytes = limit_bytes

    def add_picture(self, name: str, path: Path, images_seen: int) -> None:
        """Add a PNG as it is now; the file itself may change afterwards, as long as it is replaced as a whole.

        Raises:
            OSError: The disk is full, or the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        short = fit_name(_quoted(name), reserved_bytes=_RESERVED_BYTES)
        entry = self._folder / f"{images_seen:0{_POSITION_DIGITS}d}+{short}{_PICTURE}"
        partial = entry.with_suffix(".partial")
        for old in (partial, entry):
            old.unlink(missing_ok=True)
        try:
            os.link(path, partial)  # a second name of the same bytes costs nothing
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, partial)
        partial.replace(entry)
        self._keep_within_limit()

    def add_file(self, path: Path) -> None:
        """Add a file, whose newest content is what the tracker will receive.

        Raises:
            OSError: The folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # Relative, so that a run folder may move before its files are sent.
        target = os.path.relpath(path.resolve(), self._folder.resolve())
        write_atomically(self._folder / f"{fit_name(_quoted(path.name))}{_FILE}", os.fsencode(target))

    def __iter__(self) -> Iterator[Waiting]:
        """Yield what waits: pictures by their positions, then files."""
        for entry in self._entries(_PICTURE):
            position, _, name = entry.stem.partition("+")
            if _POSITION.fullmatch(position):
                yield Waiting(_unquoted(name), entry, int(position), entry)
        for entry in self._entries(_FILE):
            if path := self._named_in(entry):
                yield Waiting(_unquoted(entry.stem), path, None, entry)
            else:
                _LOG.warning("%s names no file of %s, and is not sent", entry, self._run)
                entry.unlink()

    def _named_in(self, entry: Path) -> Path | None:
        """Return the file that an entry names; None where it is gone, or outside of the run folder."""
        with contextlib.suppress(OSError, ValueError):  # too long a path, or one with NUL
            path = (self._folder.resolve() / os.fsdecode(read_whole(entry, _MAX_PATH_BYTES))).resolve()
            if path.is_relative_to(self._run.resolve()) and path.is_file():
                return path
        return None

    def remove(self, waiting: Waiting) -> None:
        """Remove what has been received, or never can be."""
        waiting.entry.unlink(missing_ok=True)

    def _entries(self, suffix: str) -> list[Path]:
        found = sorted(self._folder.glob(f"*{suffix}")) if self._folder.is_dir() else []
        return [path for path in found if path.is_file() and not path.is_symlink()]

    def _keep_within_limit(self) -> None:
        pictures, sizes = self._entries(_PICTURE), []
        for path in pictures:
            with contextlib.suppress(FileNotFoundError):  # just received
                sizes.append((path, path.stat().st_size))
        total = sum(size for _, size in sizes)
        for path, size in sizes[:-1]:
            if total <= self._limit_bytes:
                return
            _LOG.warning("over %d MiB of pictures wait for a tracker; %s is dropped", self._limit_bytes >> 20, path)
            path.unlink(missing_ok=True)
            total -= size


def _quoted(name: str) -> str:
    """Return a name as that of a file; one that comes from a file may hold bytes that are no text."""
    return quote(os.fsencode(name), safe="")


def _unquoted(name: str) -> str:
    return os.fsdecode(unquote_to_bytes(name))

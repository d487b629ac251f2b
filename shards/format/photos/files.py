"""Finds photos in folders and reads their files, in one way for every job."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError
from shards.format.photos.errors import DecodeError
from shards.format.photos.formats import photo_suffixes

# Folders of thumbnails, deleted files and archives that other systems add to photos. What begins with a dot is hidden.
_FOREIGN_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)
_FOREIGN_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})

# A file's own fault. Any other error is one of the disk, and the job stops.
_OWN_FAULTS = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
)
# No format stores a pixel in more, metadata aside.
_MAX_BYTES_PER_PIXEL = 16
_MAX_METADATA_BYTES = 2**28
_SHOWN_PARTS = 10


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    folder: Path
    photos: tuple[Path, ...]
    """Sorted. Files with the ending of a photo; below a folder that is searched whole also dangling links and folders
    that may not be listed: reading one of these says what is wrong with it."""
    others: tuple[Path, ...]
    """Files of other kinds, sorted; hidden files and those of other systems do not count."""
    folders: tuple[Path, ...]
    """Folders inside, sorted, where these are not searched."""

    @property
    def passed_over(self) -> Counter[str]:
        """Number of files of other kinds by ending, in lower case."""
        return Counter(path.suffix.lower() for path in self.others)


def list_photos(folder: Path, *, recursive: bool = True) -> Listing:
    """List the photos of a folder.

    Links to folders are followed, each real folder is searched once: under its own path where that lies below the
    folder, else under the first link by name.

    Args:
        folder: The folder; it must exist.
        recursive: Search the folders below as well.

    Raises:
        InputError: A folder cannot be listed for another reason than a missing permission.
    """
    photos: list[Path] = []
    others: list[Path] = []
    folders: list[Path] = []
    for path, is_folder in _walk(folder, recursive=recursive):
        if is_folder and not recursive:
            folders.append(path)
        elif is_folder or path.suffix.lower() in photo_suffixes() or (recursive and _is_dangling(path)):
            photos.append(path)
        else:
            others.append(path)
    found = (tuple(sorted(paths, key=lambda path: path.as_posix())) for paths in (photos, others, folders))
    return Listing(folder, *found)


def _walk(folder: Path, *, recursive: bool) -> Iterator[tuple[Path, bool]]:
    """Yield files, and folders that are not searched or may not be listed, marked so. Real ones come before links."""
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        links.sort(reverse=True)
        current = waiting.pop() if waiting else links.pop()
        try:
            status = current.stat()
            identity = status.st_dev, status.st_ino
            entries = [] if identity in seen else list(os.scandir(current))
        except OSError as error:
            if error.errno not in _OWN_FAULTS or current == folder:
                raise _unlistable(current, error) from error
            yield current, True
            continue
        seen.add(identity)
        for entry in entries:
            if _is_foreign(entry):
                continue
            if not _is_folder(entry):
                yield Path(entry.path), False
            elif recursive:
                (links if entry.is_symlink() else waiting).append(Path(entry.path))
            else:
                yield Path(entry.path), True


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    return name.startswith(".") or name in _FOREIGN_FILES or (name in _FOREIGN_FOLDERS and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in _OWN_FAULTS:
            raise _unlistable(Path(entry.path), error) from error
        return False  # a link to itself, or into a folder that may not be entered


def _is_dangling(path: Path) -> bool:
    try:
        return path.is_symlink() and not path.exists()
    except OSError as error:
        if error.errno not in _OWN_FAULTS:
            raise _unlistable(path, error) from error
        return True


def _unlistable(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot list {folder}: {error.strerror}; make it readable, or exclude it")


def describe_passed_over(listings: Iterable[Listing]) -> str:
    """Return one line about files of other kinds, and folders that are not searched; empty where there are none."""
    counts: Counter[str] = Counter()
    folders: list[str] = []
    for listing in listings:
        counts.update(listing.passed_over)
        folders += [folder.name for folder in listing.folders]
    endings = [f"{ending or 'no ending'} {count}" for ending, count in sorted(counts.items())]
    ignored = [f"{counts.total()} file(s) of other kinds ({_shortened(endings)})"] if endings else []
    ignored += [f"{len(folders)} folder(s) inside ({_shortened(folders)})"] if folders else []
    return f"ignored: {' and '.join(ignored)}" if ignored else ""


def _shortened(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_SHOWN_PARTS]) + (" ..." if len(parts) > _SHOWN_PARTS else "")


def read_file(path: Path, *, max_pixels: int) -> bytes:
    """Read a photo's file.

    Args:
        path: The file.
        max_pixels: No file of so many pixels, uncompressed, is longer than what is read.

    Raises:
        DecodeError: It is missing, may not be read, is not a regular file, or is longer than any photo allowed: this
            photo's own fault.
        OSError: Storage failed.
    """
    limit = _MAX_BYTES_PER_PIXEL * max_pixels + _MAX_METADATA_BYTES
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            list(os.scandir(path))
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("unreadable", "it is not a regular file")
        if status.st_size > limit:
            raise DecodeError("too-large", f"{status.st_size} bytes for at most {max_pixels} pixels")
        return path.read_bytes()
    except OSError as error:
        if error.errno not in _OWN_FAULTS:
            raise
        what = "it is a link to nothing" if _is_dangling(path) else (error.strerror or str(error)).lower()
        raise DecodeError("unreadable", what) from error

"""Finds photos: the same list in the same order on every machine.

A photo's name is `FOLDER/PATH`: the name of the source folder it was found in and its path below it, with
forward slashes. Machine paths are in no file that this project writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class SourceFile:
    """A file with the suffix of an image."""

    name: str
    """`FOLDER/PATH`, unique in a dataset and equal on every machine."""
    path: Path


def discover(folders: Sequence[Path], *, flag: str = "--source") -> tuple[SourceFile, ...]:
    """List the images below some folders, sorted by name.

    Args:
        folders: Folders to search; hidden files are skipped, links to folders are not followed.
        flag: Flag that named the folders, for error texts.

    Returns:
        One entry per file with an image suffix. Two folders of the same name get `NAME` and `NAME~2`.

    Raises:
        InputError: A folder is missing, no folder, unreadable, empty, or holds no image.
    """
    found: list[SourceFile] = []
    labels: dict[str, int] = {}
    for folder in folders:
        resolved = folder.expanduser().resolve()
        paths = sorted(_images_below(resolved, given=folder, flag=flag), key=lambda path: path.as_posix())
        labels[resolved.name] = labels.get(resolved.name, 0) + 1
        count = labels[resolved.name]
        label = resolved.name if count == 1 else f"{resolved.name}~{count}"
        found += [SourceFile(f"{label}/{path.relative_to(resolved).as_posix()}", path) for path in paths]
    return tuple(sorted(found, key=lambda file: file.name))


def _images_below(folder: Path, *, given: Path, flag: str) -> list[Path]:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"{flag} {given} {what} (looked at {folder}); give a folder of photos")
    files = [path for path in _walk(folder) if not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        got = f"{len(files)} other file(s), such as {min(files).name}" if files else "an empty folder"
        known = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{flag} {given} holds no image; got {got}; give a folder with files named {known}")
    return images


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(
            f"cannot list the folder {error.filename}: {error.strerror}; make it readable, or exclude it"
        ) from error

    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            yield Path(parent, name)

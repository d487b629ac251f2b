"""Names photos: the same list in the same order on every machine.

A photo's name is `FOLDER/PATH`: the name of the source folder it was found in and its path below it, with
forward slashes. Machine paths are in no file that this project writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError
from shards.format.photos import Listing, list_photos, photo_suffixes


@dataclass(frozen=True)
class SourceFile:
    """A photo to survey."""

    name: str
    """`FOLDER/PATH`, unique in a dataset and equal on every machine."""
    path: Path


def discover(folders: Sequence[Path], *, flag: str = "--source") -> tuple[SourceFile, ...]:
    """List the photos below some folders, sorted by name; see `list_folders` and `name_photos`."""
    return name_photos(list_folders(folders, flag=flag))


def list_folders(folders: Sequence[Path], *, flag: str = "--source") -> list[Listing]:
    """List the photos below each of some folders; see `list_photos` for what is found.

    Args:
        folders: Folders to search.
        flag: Flag that named the folders, for error texts.

    Raises:
        InputError: A folder is missing, not a folder, unreadable, empty, or holds no photo.
    """
    return [_list_folder(folder, flag) for folder in folders]


def name_photos(listings: Sequence[Listing]) -> tuple[SourceFile, ...]:
    """Name the photos of some folders.

    Returns:
        One entry per photo, sorted by name. Two folders of the same name get `NAME` and `NAME~2`.
    """
    named: list[SourceFile] = []
    labels: dict[str, int] = {}
    for listing in listings:
        folder = listing.folder
        labels[folder.name] = labels.get(folder.name, 0) + 1
        count = labels[folder.name]
        label = folder.name if count == 1 else f"{folder.name}~{count}"
        named += [SourceFile(f"{label}/{path.relative_to(folder).as_posix()}", path) for path in listing.photos]
    return tuple(sorted(named, key=lambda file: file.name))


def _list_folder(given: Path, flag: str) -> Listing:
    folder = given.resolve()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{flag} {given} {what} (looked at {folder}); give a folder of photos")
    listing = list_photos(folder)
    if not listing.photos:
        others = listing.others
        got = f"{len(others)} other file(s), such as {others[0].name}" if others else "an empty folder"
        known = " ".join(sorted(photo_suffixes()))
        raise InputError(f"{flag} {given} holds no image; got {got}; give a folder with files named {known}")
    return listing

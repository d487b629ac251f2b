"""Names photos: the same list in the same order on every machine.

A photo's name is `FOLDER/PATH`: the name of the source folder it was found in and its path below it, with
forward slashes. Machine paths are in no file that this project writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from shards.errors import InputError
from shards.format.lq_names import lq_stems
from shards.format.photos import Listing, list_photos, photo_suffixes
from shards.format.rejects import Reject


@dataclass(frozen=True)
class SourceFile:
    """A photo to survey."""

    name: str
    """`FOLDER/PATH`, unique in a dataset and equal on every machine."""
    path: Path
    lq: SourceFile | None = None
    """Its LQ image, where LQ images are given."""
    reject: Reject | None = None
    """Why it cannot be used, where its name alone tells that: one half of a pair is missing."""

    @property
    def is_hr(self) -> bool:
        """Whether it is a photo, and not an LQ image that belongs to none."""
        return self.reject is None or self.reject.reason != "hr-missing"


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
    return _sorted(_named(listings))


def name_sources(hr: Sequence[Listing], lq: Sequence[Listing], scale: int) -> tuple[SourceFile, ...]:
    """Name the photos of some folders, paired with their LQ images where folders of these are given."""
    return pair_photos(hr, lq, scale) if lq else name_photos(hr)


def _sorted(parts: Sequence[Sequence[SourceFile]]) -> tuple[SourceFile, ...]:
    return tuple(sorted(itertools.chain.from_iterable(parts), key=lambda file: file.name))


def _named(listings: Sequence[Listing]) -> list[list[SourceFile]]:
    """Return the named photos of each folder."""
    named: list[list[SourceFile]] = []
    labels: dict[str, int] = {}
    for listing in listings:
        folder = listing.folder
        labels[folder.name] = labels.get(folder.name, 0) + 1
        count = labels[folder.name]
        label = folder.name if count == 1 else f"{folder.name}~{count}"
        named.append([SourceFile(f"{label}/{path.relative_to(folder).as_posix()}", path) for path in listing.photos])
    return named


def pair_photos(hr: Sequence[Listing], lq: Sequence[Listing], scale: int) -> tuple[SourceFile, ...]:
    """Name the photos of some folders, each with its LQ image.

    A pair has the same path below its two folders, but for the ending and for the scale that the LQ's name may end in
    (`shards.format.lq_names`): `sub/a.png` with `sub/a.jpg` or `sub/ax4.png`.

    Args:
        hr: Folders of photos.
        lq: Folders of their LQ images, one for each, in the same order.
        scale: How many times smaller LQ is.

    Returns:
        One entry per photo, and per LQ image without a photo, sorted by name; those without the other half carry their
        reject. Folders get the names that `name_photos` gives them, those of LQ after those of photos.
    """
    named = _named([*hr, *lq])
    pairs = zip(named[: len(hr)], named[len(hr) :], lq, strict=True)
    return _sorted([list(_pair(photos, lqs, listing.folder.name, scale)) for photos, lqs, listing in pairs])


def _pair(photos: Sequence[SourceFile], lqs: Sequence[SourceFile], folder: str, scale: int) -> Iterator[SourceFile]:
    found: dict[str, list[SourceFile]] = {}
    for lq in lqs:
        found.setdefault(_stem(lq), []).append(lq)
    stems, used = {_stem(photo) for photo in photos}, set[str]()
    for photo in photos:
        # A name that ends in the scale by chance is that of another photo's LQ.
        own = _stem(photo)
        wanted = [stem for stem in lq_stems(own, scale) if stem == own or stem not in stems]
        fitting = _fitting(photo, wanted, found)
        used |= {lq.name for lq in fitting}
        yield replace(photo, lq=fitting[0]) if len(fitting) == 1 else _without_lq(photo, wanted, fitting, folder)
    for lq in lqs:
        if lq.name not in used:
            yield replace(lq, reject=Reject(lq.name, "hr-missing", "it is the LQ of no photo"))


def _fitting(photo: SourceFile, stems: Sequence[str], found: Mapping[str, list[SourceFile]]) -> list[SourceFile]:
    """Return the LQ images that may be a photo's: of several endings the photo's own."""
    fitting = next((found[stem] for stem in stems if stem in found), [])
    same = [lq for lq in fitting if lq.path.suffix == photo.path.suffix]
    return same or fitting


def _without_lq(photo: SourceFile, stems: Sequence[str], fitting: Sequence[SourceFile], folder: str) -> SourceFile:
    if fitting:
        detail = f"several files may be its LQ: {', '.join(lq.name for lq in fitting)}"
    else:
        detail = f"{folder} has no {' nor '.join(stems)}"
    return replace(photo, reject=Reject(photo.name, "lq-missing", detail))


def _stem(file: SourceFile) -> str:
    """Return a file's path below its source folder, without ending."""
    return PurePosixPath(file.name.partition("/")[2]).with_suffix("").as_posix()


def paths_of(files: Sequence[SourceFile]) -> dict[str, Path]:
    """Return where photos and their given LQ images are, by name."""
    return {file.name: file.path for photo in files for file in (photo, photo.lq) if file is not None}


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

"""Surveys every photo before any shard is written: its hashes and size, or why it cannot be used.

The survey decodes each photo whole, so a plan already knows what every shard will hold. Given a spool it cuts and
encodes the photo's sub-images as well, while it has the pixels. Photos that a spool holds already, from a run that was
stopped, are not decoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from shards.errors import InputError
from shards.format.photos import DecodeError, read_file, read_photo
from shards.format.png import pixels_sha256
from shards.format.rejects import PhotoNote, Reject
from shards.schema import Count, Range, Sha256
from shards.write.cutting import CutPhoto
from shards.write.sources import SourceFile
from shards.write.spool import Spool

MAX_SPOOLED_PIXELS = 2**24
"""Larger photos are cut when their shard is written, by a task that has reserved the memory."""


PhotoSide: TypeAlias = Annotated[int, Range(1, 10**6)]


@dataclass(frozen=True)
class Photo:
    """A photo that can be used."""

    name: str
    """`FOLDER/PATH`."""
    sha256: Sha256
    """Of the file's bytes."""
    size_bytes: Count
    height_px: PhotoSide
    """As decoded, EXIF rotation applied."""
    width_px: PhotoSide
    pixels_sha256: Sha256
    """Of the decoded pixels."""
    notes: tuple[PhotoNote, ...] = ()
    """What was lost or assumed when it was decoded, sorted."""

    def to_plain(self) -> dict[str, Any]:
        """Return a plan's entry; it says nothing of notes where there are none."""
        plain = asdict(self)
        return plain | {"notes": list(self.notes)} if self.notes else _without(plain, "notes")


def parse_photo(content: Mapping[str, Any]) -> Photo:
    """Parse what `Photo.to_plain` returned.

    Raises:
        TypeError: A key is missing or unknown.
    """
    return Photo(**{**content, "notes": tuple(content.get("notes", ()))})


def _without(plain: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != key}


@dataclass(frozen=True)
class SurveyTask:
    """Photos to survey in one task, and the limits that apply to them."""

    files: tuple[SourceFile, ...]
    min_side_px: int
    max_pixels: int
    known: Mapping[str, Photo]
    """Photos of an earlier survey by name; one whose bytes are the same is not decoded again."""
    alpha: Literal["composite", "reject"] = "composite"
    spool: Spool | None = None
    """Where to store the sub-images of usable photos; None to cut none."""


def survey(task: SurveyTask) -> list[Photo | Reject]:
    """Survey some photos, in order.

    Raises:
        OSError: Storage failed; worth a retry. A file that is missing or may not be read is a reject instead.
        ShardError: This machine would encode other bytes than the one that planned.
    """
    return [_survey_one(file, task) for file in task.files]


def _survey_one(file: SourceFile, task: SurveyTask) -> Photo | Reject:
    try:
        data = read_file(file.path, max_pixels=task.max_pixels)
    except DecodeError as error:
        return Reject(file.name, error.reason, error.detail)
    sha256 = hashlib.sha256(data).hexdigest()
    known = task.known.get(file.name)
    if known is not None and known.sha256 == sha256:
        return known
    facts = task.spool.facts(sha256) if task.spool else None
    if facts is not None:
        return parse_photo({**facts, "name": file.name})
    try:
        pixels, notes = read_photo(data, max_pixels=task.max_pixels, alpha=task.alpha)
    except DecodeError as error:
        return Reject(file.name, error.reason, error.detail)
    height_px, width_px, _ = pixels.shape
    if min(height_px, width_px) < task.min_side_px:
        detail = f"{width_px}x{height_px} px is smaller than a sub-image of {task.min_side_px} px"
        return Reject(file.name, "too-small", detail)
    photo = Photo(file.name, sha256, len(data), height_px, width_px, pixels_sha256(pixels), notes)
    if task.spool and height_px * width_px <= MAX_SPOOLED_PIXELS:
        task.spool.keep(sha256, _without(photo.to_plain(), "name"), CutPhoto(pixels, task.spool.settings))
    return photo


def reject_duplicates(
    surveyed: Iterable[Photo | Reject], excluded: Mapping[str, str], earlier: Collection[str] = ()
) -> tuple[list[Photo], list[Reject]]:
    """Split a survey into photos with distinct pixels, and rejects.

    Args:
        surveyed: Results of `survey`, in any order.
        excluded: Names of evaluation images by the SHA-256 of their pixels.
        earlier: Names of photos that the dataset holds already.

    Returns:
        Photos and rejects. Of equal photos an earlier one is kept, else the first by name.
    """
    photos: dict[str, Photo] = {}
    rejects: list[Reject] = []
    for result in sorted(surveyed, key=lambda result: (_name_of(result) not in earlier, _name_of(result))):
        if isinstance(result, Reject):
            rejects.append(result)
        elif result.pixels_sha256 in excluded:
            detail = f"same pixels as the evaluation image {excluded[result.pixels_sha256]}"
            rejects.append(Reject(result.name, "duplicate", detail))
        elif result.pixels_sha256 in photos:
            detail = f"same pixels as {photos[result.pixels_sha256].name}"
            rejects.append(Reject(result.name, "duplicate", detail))
        else:
            photos[result.pixels_sha256] = result
    return list(photos.values()), rejects


def _name_of(result: Photo | Reject) -> str:
    return result.path if isinstance(result, Reject) else result.name


def excluded_pixels(surveyed: Iterable[Photo | Reject]) -> dict[str, str]:
    """Return names of evaluation images by the SHA-256 of their pixels.

    Raises:
        InputError: One cannot be decoded, so that a duplicate of it would go unseen.
    """
    names: dict[str, str] = {}
    for result in surveyed:
        if isinstance(result, Reject):
            raise InputError(
                f"--exclude image {result.path} cannot be decoded ({result.reason}: {result.detail}), "
                "so duplicates of it would go unseen; repair or remove it"
            )
        names[result.pixels_sha256] = result.name
    return names


def check_rejects(photos: Sequence[Photo], rejects: Sequence[Reject], max_reject_fraction: float) -> None:
    """Check that enough photos remain.

    Raises:
        InputError: None remains, or more than the fraction was rejected; counts them by reason.
    """
    num_inputs = len(photos) + len(rejects)
    if photos and len(rejects) <= max_reject_fraction * num_inputs:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in count_reasons(rejects).items())
    first = rejects[0]
    raise InputError(
        f"{len(rejects)} of {num_inputs} photos are rejected ({counts}), more than max_reject_fraction="
        f"{max_reject_fraction} allows; the first is {first.path}: {first.reason} ({first.detail}); "
        "clean the source folder, choose a smaller sub_image_px, or raise the limit; nothing was written"
    )


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, reasons sorted."""
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject.reason] = counts.get(reject.reason, 0) + 1
    return dict(sorted(counts.items()))

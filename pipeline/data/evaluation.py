"""Evaluation sets: reads and checks their images; `pipeline.data.layouts` knows where the files are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.data.layouts import SetImage, find_set, find_sets
from shards.degradation.bicubic import downscale
from shards.errors import InputError
from shards.format.documents import digest_of
from shards.format.files import sha256_of
from shards.format.names import MAX_NAME_BYTES
from shards.format.photos import (
    DecodedPhoto,
    DecodeError,
    Picture,
    describe_passed_over,
    list_photos,
    photo_suffixes,
    read_file,
    read_photo,
    read_picture,
)
from shards.format.png import Pixels
from shards.format.rejects import PhotoNote, count_notes, describe_notes

if TYPE_CHECKING:  # whose libraries a job needs only once its images are known to be there
    from pipeline.metrics import Metric

_MAX_PIXELS = 150_000_000
_SHOWN_FAULTS = 10

DecodedT = TypeVar("DecodedT", DecodedPhoto, Picture)


@dataclass(frozen=True)
class EvaluationPair:
    """One image of a set: ground truth, with sides that are multiples of the scale, and its LQ."""

    name: str
    lq: Pixels
    gt: Pixels
    notes: tuple[PhotoNote, ...] = ()
    """What the pixels do not show of the files, sorted."""


def read_image(path: Path) -> DecodedPhoto:
    """Decode an image file to 8-bit sRGB, as the sharding job does; animations and several pages are refused.

    Raises:
        InputError: It cannot be used.
    """
    photo = _decode(path, read_photo)
    if "frames" in photo.notes:
        raise InputError(f"{path} is an animation or has several pages; save the one to use as a file of its own")
    return photo


def read_picture_file(path: Path) -> Picture:
    """Decode an image file as what it is: gray or colour, with or without alpha, of 8 or 16 bits.

    Raises:
        InputError: It cannot be used.
    """
    return _decode(path, read_picture)


def _decode(path: Path, read: Callable[..., DecodedT]) -> DecodedT:
    try:
        data = read_file(path, max_pixels=_MAX_PIXELS)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"{path} cannot be read: {error.detail.capitalize()}") from error
    try:
        return read(data, max_pixels=_MAX_PIXELS)
    except DecodeError as error:
        raise InputError(f"{path} cannot be used as an image: {error.reason} ({error.detail})") from error


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name.

    Raises:
        InputError: The folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    listing = list_photos(folder, recursive=False)
    if not listing.photos:
        got = describe_passed_over([listing]) or "it is empty"
        raise InputError(f"no images in {folder}; expected {', '.join(sorted(photo_suffixes()))}; {got}")
    return list(listing.photos)


def passed_over(folders: Iterable[Path]) -> str:
    """Return one line about what folders of images hold beside the images; empty where that is nothing."""
    return describe_passed_over(list_photos(folder, recursive=False) for folder in folders)


def passed_over_in_sets(sets: Iterable[Path]) -> str:
    """Return one line about what the HR folders of evaluation sets hold beside the images; see `passed_over`."""
    return passed_over(find_set(folder).hr for folder in sets)


def set_images(folder: Path, scale: int) -> list[SetImage]:
    """Return the images of an evaluation set, sorted by file.

    Raises:
        InputError: The folder is no evaluation set.
    """
    return find_set(folder, scale).images(scale)


def set_files(sets: Iterable[Path]) -> list[Path]:
    """Return every file that an evaluation of some sets may read: HR, and LR at any scale."""
    return [file for folder in sets for found in find_sets(folder) for file in found.files()]


def digest_of_sets(folders: Iterable[Path], scale: int) -> str:
    """Name the images of evaluation sets at a scale by the bytes of their files, whatever the sets are called.

    Raises:
        InputError: A folder is no evaluation set.
    """
    images = [image for folder in folders for image in set_images(folder, scale)]
    hashes = [[sha256_of(file) for file in (image.hr, *image.lr) if file.is_file()] for image in images]
    return digest_of({"images": sorted(hashes)})


def check_sets(folders: Sequence[Path]) -> Sequence[Path]:
    """Check evaluation sets before any work; return them.

    Raises:
        InputError: One is missing or empty, or two have the same name, under which their numbers would be mixed.
    """
    for folder in folders:
        find_set(folder).hr_files()
    names = [folder.name for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two evaluation sets are called {', '.join(twice)}; rename a folder, or measure them apart")
    return folders


def _find_lq(image: SetImage) -> Path | None:
    """Return the LQ of an image; None where the set has no folder for it."""
    for file in image.lr:
        if len(os.fsencode(file.name)) <= MAX_NAME_BYTES and file.is_file():
            return file
    if len(image.lr) == 0:
        return None
    names = " nor ".join(file.name for file in image.lr)
    which = f"has neither {names}" if len(image.lr) > 1 else f"has no {names}"
    raise InputError(f"{image.lr[0].parent} {which}; add it, or remove the folder to make LR")


def read_pair(image: SetImage, scale: int, metrics: Sequence[Metric] = ()) -> EvaluationPair:
    """Read one image of a set; the LQ is its file, or bicubic where the set has no LR of this scale.

    Raises:
        InputError: The two do not fit, or are too small for one of the metrics.
    """
    gt, lq, notes = _read_files(image, scale, metrics)
    return EvaluationPair(image.name, downscale(gt, scale) if lq is None else lq, gt, notes)


def check_images(folders: Sequence[Path], scale: int, metrics: Sequence[Metric]) -> list[str]:
    """Decode every image of some sets that metrics will measure, so that none stops a run hours later.

    Returns:
        What is lost or assumed of images, one line each.

    Args:
        folders: The sets.
        scale: Enlargement.
        metrics: What will be measured.

    Raises:
        InputError: Images cannot be used; lists them.
    """
    faults: list[str] = []
    notes: list[tuple[PhotoNote, ...]] = []
    for folder in folders:
        for image in set_images(folder, scale):
            try:
                notes.append(_read_files(image, scale, metrics)[2])
            except InputError as error:
                faults.append(str(error))
    if faults:
        more = f"\n  and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        listed = "\n  ".join(faults[:_SHOWN_FAULTS])
        raise InputError(f"{len(faults)} image(s) of the sets cannot be used:\n  {listed}{more}")
    return describe_notes(count_notes(notes), "image(s)")


def _read_files(
    image: SetImage, scale: int, metrics: Sequence[Metric]
) -> tuple[Pixels, Pixels | None, tuple[PhotoNote, ...]]:
    """Return HR, with sides that are multiples of the scale, LQ where the set has it, and the notes of both."""
    gt, notes = read_image(image.hr)
    height, width = (side - side % scale for side in gt.shape[:2])
    gt = gt[:height, :width]
    if not gt.size:
        raise InputError(f"{image.hr} is smaller than one LQ pixel at x{scale}; remove it from the set")
    for metric in metrics:
        try:
            metric.check_size(gt.shape[:2], scale)
        except InputError as error:
            raise InputError(f"{image.hr}: {error}") from error
    lq_file = _find_lq(image)
    if lq_file is None:
        return gt, None, notes
    lq, notes_of_lq = read_image(lq_file)
    if (lq.shape[0] * scale, lq.shape[1] * scale) != gt.shape[:2]:
        raise InputError(
            f"{lq_file} has {lq.shape[1]}x{lq.shape[0]} px, but {image.hr} has {gt.shape[1]}x{gt.shape[0]}; "
            f"expected {gt.shape[1] // scale}x{gt.shape[0] // scale}; correct it, or remove the folder to make LR"
        )
    return gt, lq, tuple(sorted({*notes, *notes_of_lq}))

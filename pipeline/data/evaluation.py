"""Evaluation sets: a folder with HR/ and, optionally, LRx4/ (or LRx2/, LRx3/)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.data.decode import Pixels
from shards.bicubic import downscale
from shards.decoding import DecodeError, decode_photo
from shards.errors import InputError
from shards.sources import IMAGE_SUFFIXES

_MAX_PIXELS = 150_000_000


@dataclass(frozen=True)
class EvaluationPair:
    """One image of a set: (H, W, 3) uint8 truth, sides multiples of the scale, and its LQ."""

    name: str
    lq: Pixels
    gt: Pixels


def read_image(path: Path) -> Pixels:
    """Return a file's pixels, (H, W, 3) uint8 RGB, as the sharding job reads them.

    Raises:
        InputError: It is no readable image.
    """
    try:
        return decode_photo(path.read_bytes(), max_pixels=_MAX_PIXELS)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"{path} cannot be used as an image: {error.reason} ({error.detail})") from error


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name.

    Raises:
        InputError: The folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}; an evaluation set is a folder with HR/ and, optionally, LRx4/")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"no images in {folder}; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return files


def evaluation_files(folder: Path) -> list[Path]:
    """Return the HR files of a set, sorted; see `image_files` for errors."""
    return image_files(folder / "HR")


def read_pair(hr_file: Path, scale: int) -> EvaluationPair:
    """Read one image of a set; the LQ is the file of the same name in LRx{scale}/, or bicubic.

    Raises:
        InputError: The two do not fit.
    """
    gt = read_image(hr_file)
    height, width = (side - side % scale for side in gt.shape[:2])
    gt = gt[:height, :width]
    lq_file = hr_file.parent.parent / f"LRx{scale}" / hr_file.name
    lq = read_image(lq_file) if lq_file.is_file() else downscale(gt, scale)
    if (lq.shape[0] * scale, lq.shape[1] * scale) != gt.shape[:2]:
        raise InputError(
            f"{lq_file} has {lq.shape[1]}x{lq.shape[0]} px, but {hr_file} has {gt.shape[1]}x{gt.shape[0]}; "
            f"expected {gt.shape[1] // scale}x{gt.shape[0] // scale}"
        )
    return EvaluationPair(hr_file.stem, lq, gt)

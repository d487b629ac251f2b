"""The photos that are shown, and the crops of them that a discriminator sees: as large as those of its training."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.data.evaluation import read_pair, set_images
from pipeline.inference.upscale import upscale
from pipeline.inference.window import Window
from pipeline.models.generators import Generator
from pipeline.progress import say
from shards.errors import InputError

LARGEST_PX = 768
"""Of a larger photo the middle is shown: the cost of a photo is bounded, and its cells stay visible."""

_ALIGNMENT_PX = 8  # like training's crops, windows begin at whole pixels of the LQ image, at every scale but 3


@dataclass(frozen=True)
class Photo:
    """One photo of an evaluation set.

    Attributes:
        name: Set and photo.
        hr: The whole photo.
        gt: Its middle.
        sr: That part as the run's generator upscales it.
    """

    name: str
    hr: UInt8[ndarray, "height width 3"]
    gt: UInt8[ndarray, "h w 3"]
    sr: UInt8[ndarray, "h w 3"]


def middle_of(name: str, hr: ndarray, sr: ndarray, scale: int, largest_px: int) -> Photo:
    """Return a photo that was upscaled already, shown by its middle.

    Args:
        name: Set and photo.
        hr: (H, W, 3) uint8.
        sr: As the run's generator upscales it.
        scale: Its scale.
        largest_px: Side of the middle at most.
    """
    sides = [_middle(side_px // scale, scale, largest_px) for side_px in hr.shape[:2]]
    inside = tuple(slice(part.start * scale, part.stop * scale) for part in sides)
    return Photo(name, hr, hr[inside], sr[inside])


@dataclass(frozen=True)
class Choice:
    """The photos, and those that cannot be used, with the reason."""

    photos: Sequence[Photo]
    faults: Sequence[str]


def read_photos(sets: Sequence[Path], generator: Generator, crop_px: int, count: int, named: str = "") -> Choice:
    """Read some photos, evenly spread over the sets, and upscale them.

    Args:
        sets: Checked evaluation sets.
        generator: Of the run.
        crop_px: Side of the discriminator's crops, which a photo has to have.
        count: Photos at most.
        named: A photo that is always among them, with or without its set; empty: none.

    Raises:
        InputError: No photo has that name, or none can be used; lists why.
    """
    listed = {f"{folder.name}/{image.name}": image for folder in sets for image in set_images(folder, generator.scale)}
    photos: list[Photo] = []
    faults: list[str] = []
    for name in _choose(list(listed), count, named):
        image = listed[name]
        try:
            pair = read_pair(image, generator.scale)
            photos.append(_photo(name, pair.gt, pair.lq, generator, crop_px))
        except InputError as error:
            faults.append(f"{image.hr}: {error}")
    if not photos:
        raise InputError("no photo of the sets can be shown:\n  " + "\n  ".join(faults))
    return Choice(photos, faults)


def _choose(names: Sequence[str], count: int, named: str) -> list[str]:
    count = min(count, len(names))
    chosen = [names[number * len(names) // count] for number in range(count)]
    if not named or any(is_called(name, named) for name in chosen):
        return chosen
    found = next((name for name in names if is_called(name, named)), None)
    if found is None:
        near = difflib.get_close_matches(named, [name.rpartition("/")[2] for name in names], 1)
        hint = f"did you mean {near[0]}?" if near else "name one of them"
        raise InputError(f"--query-photo {named} is no photo of the sets; {hint}")
    return [*chosen[:-1], found]


def is_called(name: str, given: str) -> bool:
    """Return whether a photo is meant by a name with or without its set."""
    return given in {name, name.rpartition("/")[2]}


def _photo(name: str, gt: ndarray, lq: ndarray, generator: Generator, crop_px: int) -> Photo:
    height_px, width_px = gt.shape[:2]
    if min(height_px, width_px) < crop_px:
        raise InputError(
            f"{width_px}x{height_px} px are too few for one crop of data.crop_px={crop_px}, as the discriminator was "
            "trained on; use larger photos"
        )
    say(f"upscaling {name}")
    scale = generator.scale
    rows, columns = (_middle(side, scale) for side in lq.shape[:2])
    sr = upscale(generator, lq[rows, columns], scale)
    inside = tuple(slice(part.start * scale, part.stop * scale) for part in (rows, columns))
    return Photo(name, gt, gt[inside], sr)


def _middle(lq_side_px: int, scale: int, largest_px: int = LARGEST_PX) -> slice:
    shown = min(lq_side_px, largest_px // scale)
    start = (lq_side_px - shown) // 2
    return slice(start, start + shown)


def lay_windows(picture: UInt8[ndarray, "h w 3"], side_px: int, step_px: int) -> list[list[Window]]:
    """Return rows of windows in the middle of a picture, as many as fit, whose corners are `step_px` apart.

    Args:
        picture: Of at least `side_px` along each side.
        side_px: Of a window.
        step_px: At most `side_px`.
    """
    tops, lefts = (list(_starts(whole_px, side_px, step_px)) for whole_px in picture.shape[:2])
    return [[Window(top, left, side_px) for left in lefts] for top in tops]


def _starts(whole_px: int, side_px: int, step_px: int) -> Iterator[int]:
    count = 1 + (whole_px - side_px) // step_px
    unused_px = whole_px - side_px - (count - 1) * step_px
    first_px = unused_px // 2 // _ALIGNMENT_PX * _ALIGNMENT_PX
    yield from (first_px + number * step_px for number in range(count))

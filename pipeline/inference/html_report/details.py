"""Which parts of a photo are enlarged: those where two results differ most, a rule that favours no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from pipeline.inference.window import Window

T = TypeVar("T")

_LARGEST_SIDE_PX = 64


def evenly_spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most so many items, evenly spread, in order."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def where_most_varied(
    pictures: Sequence[UInt8[ndarray, "h w 3"]], count: int = 2, largest_side_px: int = _LARGEST_SIDE_PX
) -> list[Window]:
    """Return the windows where some pictures vary most, by squared deviations from their mean; none overlap.

    Args:
        pictures: Of one photo.
        count: Windows at most; fewer where the photo has no place for more, none where all pictures are equal.
        largest_side_px: Of a window; the shorter side of a smaller photo.
    """
    total, squares = (np.zeros(pictures[0].shape) for _ in range(2))
    for picture in pictures:  # one at a time, since many large ones do not fit into memory as numbers
        values = picture.astype(np.float64)
        total += values
        squares += np.square(values)
    deviations = squares - np.square(total) / len(pictures)
    return _largest_windows(deviations.sum(axis=2).clip(min=0), largest_side_px, count)


def where_most_different(one: UInt8[ndarray, "h w 3"], other: UInt8[ndarray, "h w 3"], count: int = 2) -> list[Window]:
    """Return the windows with the largest sum of squared differences, the largest first; none overlap.

    Args:
        one: A picture.
        other: Another one of the same photo.
        count: Windows at most; fewer where the photo has no place for more, none where both are equal.
    """
    return where_most_varied([one, other], count)


def _largest_windows(values: Float64[ndarray, "h w"], largest_side_px: int, count: int) -> list[Window]:
    """Return the square windows with the largest sums of values, the largest first; none overlap."""
    side_px = min(largest_side_px, *values.shape)
    sums = _window_sums(values, side_px)
    windows: list[Window] = []
    while len(windows) < count and sums.max() > 0:
        top, left = (int(index) for index in np.unravel_index(sums.argmax(), sums.shape))
        windows.append(Window(top, left, side_px))
        sums[max(0, top - side_px + 1) : top + side_px, max(0, left - side_px + 1) : left + side_px] = -np.inf
    return windows


def _window_sums(values: Float64[ndarray, "h w"], side_px: int) -> Float64[ndarray, "rows columns"]:
    """Return the sum over the square window that begins at each position."""
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    above, below = total[:-side_px], total[side_px:]
    return below[:, side_px:] - below[:, :-side_px] - above[:, side_px:] + above[:, :-side_px]

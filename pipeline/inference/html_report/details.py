"""Which parts of a photo are enlarged: those where two results differ most, a rule that favours no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

_LARGEST_SIDE_PX = 64


@dataclass(frozen=True)
class Window:
    """A square part of an image."""

    top_px: int
    left_px: int
    side_px: int

    def cut(self, image: ndarray) -> ndarray:
        """Return a copy of the part of an image of (H, W, ...)."""
        rows, columns = (slice(first, first + self.side_px) for first in (self.top_px, self.left_px))
        return image[rows, columns].copy()


def where_most_different(one: UInt8[ndarray, "h w 3"], other: UInt8[ndarray, "h w 3"], count: int = 2) -> list[Window]:
    """Return the windows with the largest sum of squared differences, the largest first; none overlap.

    Args:
        one: A picture.
        other: Another one of the same photo.
        count: Windows at most; fewer where the photo has no place for more, none where both are equal.
    """
    side_px = min(_LARGEST_SIDE_PX, *one.shape[:2])
    sums = _window_sums(np.square(one.astype(np.float64) - other).sum(axis=2), side_px)
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

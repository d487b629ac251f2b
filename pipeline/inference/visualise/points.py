"""Points of a photo, as a user names them. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shards.errors import InputError


@dataclass(frozen=True)
class Coordinate:
    """A distance from the left or upper border of a photo: in pixels, or in percent of the side."""

    value: float
    is_percent: bool

    def pixel_of(self, side_px: int) -> int | None:
        """Return the pixel, of which the last includes the border; None outside."""
        at_px = self.value * side_px / 100 if self.is_percent else self.value
        return min(int(at_px), side_px - 1) if at_px <= side_px else None

    def __str__(self) -> str:
        return f"{self.value:g}{'%' if self.is_percent else ''}"


@dataclass(frozen=True)
class Point:
    """A point of a photo."""

    x: Coordinate
    y: Coordinate

    def pixel_of(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return row and column in a photo.

        Raises:
            InputError: The point is outside.
        """
        row, column = self.y.pixel_of(height_px), self.x.pixel_of(width_px)
        if row is None or column is None:
            raise InputError(
                f"--queries {self.x},{self.y} is outside of the photo, which has {width_px}x{height_px} px; name a "
                "point inside, or another photo with --query-photo"
            )
        return row, column


def parse_point(text: str) -> Point:
    """Return the point that a user names: `X,Y` in pixels, or `X%,Y%`.

    Raises:
        InputError: It is none.
    """
    found = [_parse(word.strip()) for word in text.split(",")]
    x, y = found if len(found) == 2 else (None, None)
    if x is None or y is None:
        raise InputError(
            "--queries names points of a photo as X,Y in pixels or X%,Y% from its upper left corner, such as 120,80 or "
            f"25%,50%; got {text!r}"
        )
    return Point(x, y)


def _parse(word: str) -> Coordinate | None:
    try:
        value = float(word.removesuffix("%"))
    except ValueError:
        return None
    return Coordinate(value, word.endswith("%")) if 0 <= value < math.inf else None

"""Where sub-images lie in a photo: a grid at a stride, with the last row and column always covered.

A photo is first cut, right and bottom, to a multiple of the scale ("modcrop"), as the field does, so that a
sub-image and its LR image show the same thing to the pixel.

References:
    BasicSR, scripts/data_preparation/extract_subimages.py: 480 px at stride 240. It drops a last strip that
    is narrower than its threshold; here every pixel of the cut photo is used.
"""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """Top left corner of a sub-image in HR pixels of the cut photo; both are multiples of the scale."""

    top_px: int
    left_px: int


def cut_side(side_px: int, scale: int) -> int:
    """Return the largest multiple of the scale that is not above a side."""
    return side_px - side_px % scale


def starts(side_px: int, sub_image_px: int, stride_px: int) -> list[int]:
    """Return where sub-images start along one side.

    Args:
        side_px: Side of the photo, a multiple of the scale, at least `sub_image_px`.
        sub_image_px: Side of a sub-image.
        stride_px: Distance of starts, at most `sub_image_px`.

    Returns:
        Rising starts; the last sub-image ends at `side_px`, overlapping its neighbour by more where needed.
    """
    last_px = side_px - sub_image_px
    regular = list(range(0, last_px + 1, stride_px))
    return regular if regular[-1] == last_px else [*regular, last_px]


def grid(height_px: int, width_px: int, *, scale: int, sub_image_px: int, stride_px: int) -> list[Position]:
    """Return the sub-images of a photo, row by row.

    Args:
        height_px: Height of the photo as decoded, at least `sub_image_px`.
        width_px: Width of the photo as decoded, at least `sub_image_px`.
        scale: Both sides are cut to a multiple of it first.
        sub_image_px: Side of a sub-image, a multiple of the scale.
        stride_px: Distance of starts, a multiple of the scale.

    Returns:
        Positions, every one a multiple of the scale.
    """
    rows = starts(cut_side(height_px, scale), sub_image_px, stride_px)
    columns = starts(cut_side(width_px, scale), sub_image_px, stride_px)
    return [Position(top, left) for top in rows for left in columns]

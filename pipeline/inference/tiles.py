"""Tiles of images that do not fit into memory at once. No torch, so that a command line can check their sizes."""

from __future__ import annotations

import math

from shards.errors import InputError

DEFAULT_TILE_PX = 512
DEFAULT_OVERLAP_PX = 32

_MULTIPLE_PX = 8  # a network with windows pads each tile to a multiple of their side


def check_tiles(tile_px: int, overlap_px: int) -> None:
    """Check that tiles can cover an image.

    Raises:
        InputError: The sizes do not fit together.
    """
    if tile_px < 1 or not 0 <= 2 * overlap_px <= tile_px:
        raise InputError(
            f"tile_px={tile_px} must be at least 1 and at least twice overlap_px={overlap_px}, which must be 0 or above"
        )


def lay_tiles(side_px: int, tile_px: int, overlap_px: int) -> list[tuple[int, int]]:
    """Return the first pixel of each tile of one axis, and the one after its last.

    As few tiles as can be, all of one size, and no larger than required: pixels in two tiles are computed twice.

    Args:
        side_px: Of the image.
        tile_px: Largest side of a tile.
        overlap_px: Smallest overlap of neighbours; at most half of `tile_px`.
    """
    if side_px <= tile_px:
        return [(0, side_px)]
    further = math.ceil((side_px - tile_px) / (tile_px - overlap_px))
    required_px = math.ceil((side_px + further * overlap_px) / (further + 1))
    length_px = min(tile_px, math.ceil(required_px / _MULTIPLE_PX) * _MULTIPLE_PX)
    starts = (number * (side_px - length_px) // further for number in range(further + 1))
    return [(start, start + length_px) for start in starts]

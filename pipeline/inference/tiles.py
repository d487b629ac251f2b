"""Tile sizes for images that do not fit into memory at once. No torch, so that a command line can check them."""

from __future__ import annotations

from shards.errors import InputError

DEFAULT_TILE_PX = 512
DEFAULT_OVERLAP_PX = 32


def check_tiles(tile_px: int, overlap_px: int) -> None:
    """Check that tiles can cover an image.

    Raises:
        InputError: The sizes do not fit together.
    """
    if tile_px < 1 or not 0 <= 2 * overlap_px <= tile_px:
        raise InputError(
            f"tile_px={tile_px} must be at least 1 and at least twice overlap_px={overlap_px}, which must be 0 or above"
        )

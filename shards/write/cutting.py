"""Cuts a decoded photo into sub-images and encodes them: positions, pixel hashes, LQ images.

A pure function of pixels and settings. The survey calls it, having just decoded the photo, or else the writer of a
shard.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.degradation.bicubic import downscale
from shards.errors import ShardError
from shards.format.png import ENCODER, encode_png, pixels_sha256
from shards.format.settings import ImageSettings
from shards.write.subimages import Position, cut_side, grid


class SubImage(NamedTuple):
    """One sub-image, encoded."""

    pixels_sha256: str
    """Of the HR pixels."""
    gt_png: bytes
    lq_png: bytes | None
    """Cut from the LQ of the whole photo, computed or given; None for real-world shards, whose LQ is made during
    training."""


def positions_in(height_px: int, width_px: int, settings: ImageSettings) -> list[Position]:
    """Return where the sub-images of a photo lie, in their order, by a plan's settings."""
    return grid(
        height_px,
        width_px,
        scale=settings.scale,
        sub_image_px=settings.sub_image_px,
        stride_px=settings.stride_px,
    )


class CutPhoto:
    """A photo to take sub-images from.

    Args:
        pixels: (height, width, 3) uint8 RGB, at least a sub-image large; cut to multiples of the scale first.
        settings: A plan's.
        lq: (height / scale, width / scale, 3) uint8 RGB of paired shards; None where LQ is computed, or made during
            training.

    Raises:
        ShardError: This machine encodes differently from the one that planned.
    """

    def __init__(self, pixels: NDArray[np.uint8], settings: ImageSettings, lq: NDArray[np.uint8] | None = None) -> None:
        if settings.encoder != ENCODER:
            raise ShardError(
                f"this machine would write other bytes: its encoder is {ENCODER!r}, the plan's is "
                f"{settings.encoder!r}; run the same Python, with the same zlib, on every machine of the cluster"
            )
        scale = settings.scale
        height_px, width_px = (cut_side(side_px, scale) for side_px in pixels.shape[:2])
        self._gt = np.ascontiguousarray(pixels[:height_px, :width_px])
        self._lq = downscale(self._gt, scale) if settings.degradation == "classical" else lq
        self._scale, self._size_px = scale, settings.sub_image_px
        self._positions = positions_in(height_px, width_px, settings)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> SubImage:
        """Cut and encode the sub-image of a number."""
        top_px, left_px = self._positions[number]
        gt = _crop(self._gt, top_px, left_px, self._size_px)
        lq_png = None
        if self._lq is not None:
            lq = _crop(self._lq, top_px // self._scale, left_px // self._scale, self._size_px // self._scale)
            lq_png = encode_png(lq)
        return SubImage(pixels_sha256(gt), encode_png(gt), lq_png)


def _crop(image: NDArray[np.uint8], top_px: int, left_px: int, size_px: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[top_px : top_px + size_px, left_px : left_px + size_px])

"""Aligned random crops of a sample, drawn from its seed.

A crop of the ground truth and the same crop of its low-quality image show the same place in the same orientation:
offsets are multiples of the scale, and `Crop.scaled` is exact or an error. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.degradation.draws import Stream, StreamNumber
from shards.errors import InputError

_FLIP_COLUMNS = 1
_FLIP_ROWS = 2
_TRANSPOSE = 4
NUM_DIHEDRALS = 8


@dataclass(frozen=True)
class Crop:
    """A square window and one of the square's eight symmetries.

    Attributes:
        top_px: First row.
        left_px: First column.
        size_px: Side.
        dihedral: 0..7. Bit 0 mirrors left-right, bit 1 top-bottom, bit 2 then swaps rows and columns.
    """

    top_px: int
    left_px: int
    size_px: int
    dihedral: int

    @property
    def bottom_px(self) -> int:
        """Row after the last."""
        return self.top_px + self.size_px

    @property
    def right_px(self) -> int:
        """Column after the last."""
        return self.left_px + self.size_px

    def apply(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """Crop an image and apply the symmetry.

        Args:
            image: (H, W, C), or (H, W), of any type.

        Returns:
            (size_px, size_px, C), or without C, contiguous and a copy.

        Raises:
            InputError: The window does not lie in the image.
        """
        height_px, width_px = image.shape[:2]
        self.check(height_px, width_px)
        return self.turn(image[self.top_px : self.bottom_px, self.left_px : self.right_px])

    def check(self, height_px: int, width_px: int) -> None:
        """Check that the window lies in an image of this size.

        Raises:
            InputError: It does not.
        """
        if min(self.top_px, self.left_px) < 0 or self.bottom_px > height_px or self.right_px > width_px:
            raise InputError(f"crop {self} does not lie in an image of {height_px}x{width_px} px")

    def turn(self, window: NDArray[np.generic]) -> NDArray[np.generic]:
        """Apply the symmetry to a window that is cut already: a contiguous copy of the same shape."""
        if self.dihedral & _FLIP_COLUMNS:
            window = window[:, ::-1]
        if self.dihedral & _FLIP_ROWS:
            window = window[::-1]
        if self.dihedral & _TRANSPOSE:
            window = window.swapaxes(0, 1)
        return window.copy(order="C")

    def scaled(self, scale: int) -> Crop:
        """The same place in the image that is `scale` times smaller.

        Raises:
            InputError: An offset or the size is not a multiple of the scale.
        """
        if any(value % scale for value in (self.top_px, self.left_px, self.size_px)):
            raise InputError(f"crop {self} is not aligned to scale {scale}; draw it with multiple_px={scale}")
        return Crop(self.top_px // scale, self.left_px // scale, self.size_px // scale, self.dihedral)


def draw_crop(seed_hex: str, *, height_px: int, width_px: int, crop_px: int, multiple_px: int) -> Crop:
    """Draw the crop window of a sample and its symmetry.

    Args:
        seed_hex: The variant's seed.
        height_px: The image's height.
        width_px: The image's width.
        crop_px: Side of the crop, a multiple of `multiple_px`.
        multiple_px: Offsets are multiples of this: the scale where a low-quality image is cut alongside, else 1.

    Returns:
        A crop inside the image; each allowed offset and each of the eight symmetries is equally likely.

    Raises:
        InputError: The crop is larger than the image, or not a multiple of `multiple_px`.
    """
    if multiple_px < 1 or crop_px < 1 or crop_px % multiple_px:
        raise InputError(
            f"crop_px must be a positive multiple of the scale {multiple_px}; got {crop_px}; sample {seed_hex}"
        )
    if crop_px > min(height_px, width_px):
        raise InputError(
            f"crop_px {crop_px} is larger than the image of {height_px}x{width_px} px; sample {seed_hex}; "
            f"use a crop of at most {min(height_px, width_px) // multiple_px * multiple_px} px or larger sub-images"
        )
    stream = Stream(seed_hex, StreamNumber.CROP)
    top_px = multiple_px * stream.integer(0, (height_px - crop_px) // multiple_px)
    left_px = multiple_px * stream.integer(0, (width_px - crop_px) // multiple_px)
    return Crop(top_px, left_px, crop_px, stream.integer(0, NUM_DIHEDRALS - 1))

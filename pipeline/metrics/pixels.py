"""Which pixels the metrics see: BT.601 luma in limited range, of 8-bit RGB, without the border."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from shards.errors import InputError

# MATLAB's rgb2ycbcr, which the tables of the super-resolution papers are computed with.
_Y_WEIGHTS = np.array([65.481, 128.553, 24.966])
_Y_OFFSET = 16.0


def to_y(image: UInt8[ndarray, "h w 3"]) -> Float64[ndarray, "h w"]:
    """Luma of an RGB image, in [16, 235].

    Not rounded: BasicSR and KAIR do not round it either, MATLAB's uint8 path does.

    References:
        ITU-R BT.601; the weights of MATLAB's `rgb2ycbcr`.
    """
    return image.astype(np.float64) @ (_Y_WEIGHTS / 255) + _Y_OFFSET


def cut_border(image: UInt8[ndarray, "h w 3"], border_px: int) -> UInt8[ndarray, "h2 w2 3"]:
    """View of the image without `border_px` pixels on each side.

    Raises:
        InputError: The border is negative, or nothing would be left.
    """
    height_px, width_px = image.shape[:2]
    if border_px < 0 or 2 * border_px >= min(height_px, width_px):
        raise InputError(f"cannot cut a border of {border_px} px from an image of {height_px}x{width_px} px")
    return image[border_px : height_px - border_px, border_px : width_px - border_px]


def check_pair(sr: ndarray, gt: ndarray, border_px: int) -> None:
    """Check that two images can be compared.

    Raises:
        InputError: They are not uint8 (height, width, 3), their sizes differ, or the border leaves nothing.
    """
    for name, image in (("sr", sr), ("gt", gt)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"metrics need uint8 RGB (height, width, 3); got {name} {image.dtype} {image.shape}")
    if sr.shape != gt.shape:
        raise InputError(
            f"metrics need images of one size; got sr {sr.shape[0]}x{sr.shape[1]} px, "
            f"gt {gt.shape[0]}x{gt.shape[1]} px; crop the ground truth to a multiple of the scale"
        )
    cut_border(sr, border_px)

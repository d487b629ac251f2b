"""Which pixels the metrics see: the Y of BT.601 in limited range, on 8-bit RGB, without the border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.errors import InputError

_Y_WEIGHTS = np.array([65.481, 128.553, 24.966])
_Y_OFFSET = 16.0


def to_y(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luma of an 8-bit RGB image.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float64 in [16, 235], not rounded, as the field's evaluation code has it.

    References:
        ITU-R BT.601; the weights of MATLAB's `rgb2ycbcr`.
    """
    return image.astype(np.float64) @ (_Y_WEIGHTS / 255) + _Y_OFFSET


def cut_border(image: NDArray[np.uint8], border_px: int) -> NDArray[np.uint8]:
    """The image without `border_px` pixels on each side, a view.

    Raises:
        InputError: The border is negative, or nothing would be left.
    """
    height_px, width_px = image.shape[:2]
    if border_px < 0 or 2 * border_px >= min(height_px, width_px):
        raise InputError(f"cannot cut a border of {border_px} px from an image of {height_px}x{width_px} px")
    return image[border_px : height_px - border_px, border_px : width_px - border_px]


def checked_pair(
    sr: NDArray[np.uint8], gt: NDArray[np.uint8], border_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both images without their borders.

    Raises:
        InputError: They are not uint8 (H, W, 3), their sizes differ, or the border eats them.
    """
    for name, image in (("sr", sr), ("gt", gt)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"metrics need uint8 RGB (height, width, 3); got {name} {image.dtype} {image.shape}")
    if sr.shape != gt.shape:
        raise InputError(
            f"metrics need images of one size; got sr {sr.shape[0]}x{sr.shape[1]} px, "
            f"gt {gt.shape[0]}x{gt.shape[1]} px; crop the truth to a multiple of the scale"
        )
    return cut_border(sr, border_px), cut_border(gt, border_px)

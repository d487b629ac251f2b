"""Bicubic resizing as MATLAB's `imresize` does it, for 8-bit images, without torch.

The filter is Keys' cubic with a = -0.5, widened by the scale when shrinking (antialiasing); borders are mirrored with
the edge pixel repeated. The result is rounded half up and clipped once, at the end. On Set5 x4, it differs from
MATLAB's images by at most one gray level, and at less than 0.01% of the values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shards.errors import InputError

SCALES = (1, 2, 3, 4, 8, 16)
"""Scales of the generators that can be read; 1 changes nothing."""


def cubic(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.5 at a distance in samples.

    References:
        Keys 1981, Cubic convolution interpolation for digital image processing, equation 15.
    """
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def downscale_taps(scale: int) -> list[tuple[int, float]]:
    """(offset, weight) of each source sample, relative to `scale * i`, for output sample `i`; weights sum to 1."""
    centre = (scale - 1) / 2
    offsets = range(math.ceil(centre - 2 * scale), math.floor(centre + 2 * scale) + 1)
    weights = [(offset, cubic((offset - centre) / scale)) for offset in offsets]
    total = sum(weight for _, weight in weights)
    return [(offset, weight / total) for offset, weight in weights if weight]


def upscale_taps(scale: int, phase: int) -> list[tuple[int, float]]:
    """(offset, weight) of each source sample, relative to `i`, for output sample `scale * i + phase`."""
    position = (phase + 0.5) / scale - 0.5
    base = math.floor(position)
    return [(base + k, cubic(position - base - k)) for k in range(-1, 3)]


def downscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Downscale an image by `scale`.

    Args:
        image: (H, W, C) uint8; both sides multiples of the scale.
        scale: One of `SCALES`.

    Returns:
        (H / scale, W / scale, C) uint8.

    Raises:
        InputError: Another scale, another type or shape, or a side that is not a multiple of the scale.
    """
    _check(image, scale)
    height_px, width_px = image.shape[:2]
    if height_px % scale or width_px % scale:
        raise InputError(
            f"cannot shrink {height_px}x{width_px} px by {scale}; crop to a multiple of {scale} first, "
            f"{height_px // scale * scale}x{width_px // scale * scale} px"
        )
    taps = downscale_taps(scale)
    return _to_uint8(_shrink(_shrink(image.astype(np.float64), scale, taps, axis=0), scale, taps, axis=1))


def upscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Upscale an image by `scale`.

    Args:
        image: (H, W, C) uint8, of any size.
        scale: One of `SCALES`.

    Returns:
        (H * scale, W * scale, C) uint8.

    Raises:
        InputError: Another scale, or another type or shape.
    """
    _check(image, scale)
    return _to_uint8(_enlarge(_enlarge(image.astype(np.float64), scale, axis=0), scale, axis=1))


def _shrink(image: NDArray[np.float64], scale: int, taps: list[tuple[int, float]], axis: int) -> NDArray[np.float64]:
    size_px = image.shape[axis]
    before = -taps[0][0]
    padded = _mirror(image, before, taps[-1][0] + 1 - scale, axis)
    shape = list(image.shape)
    shape[axis] = size_px // scale
    result = np.zeros(shape)
    for offset, weight in taps:
        result += weight * padded[_slice(axis, slice(before + offset, before + offset + size_px, scale))]
    return result


def _enlarge(image: NDArray[np.float64], scale: int, axis: int) -> NDArray[np.float64]:
    size_px = image.shape[axis]
    padded = _mirror(image, 2, 2, axis)
    shape = list(image.shape)
    shape[axis] *= scale
    result = np.zeros(shape)
    for phase in range(scale):
        part = result[_slice(axis, slice(phase, None, scale))]
        for offset, weight in upscale_taps(scale, phase):
            part += weight * padded[_slice(axis, slice(2 + offset, 2 + offset + size_px))]
    return result


def _slice(axis: int, along: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (along,)


def _mirror(image: NDArray[np.float64], before: int, after: int, axis: int) -> NDArray[np.float64]:
    widths = [(0, 0)] * image.ndim
    widths[axis] = (before, after)
    return np.pad(image, widths, mode="symmetric")


def _to_uint8(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _check(image: NDArray[np.uint8], scale: int) -> None:
    if scale not in SCALES:
        raise InputError(f"bicubic resizing supports the scales {SCALES}; got {scale}")
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise InputError(f"bicubic resizing needs uint8 (height, width, channels); got {image.dtype} {image.shape}")

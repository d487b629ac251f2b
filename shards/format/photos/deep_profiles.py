"""Colour profiles of 16-bit images: Pillow's colour engine converts 8 bits alone.

Profiles of a matrix and curves, which cameras and editors use for their working spaces (Adobe RGB, Display P3,
ProPhoto, linear), are computed here; others are tables, and return None.

References:
    ICC.1:2010 (profile version 4.3), 10.5 curveType, 10.15 parametricCurveType, F.3 three-component matrix-based model.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt16
from PIL import ImageCms

_LEVELS = 65536
_FULL = _LEVELS - 1
_ROWS = 64
_MAX_TAGS = 100
# Number of parameters by the function's number.
_PARAMETERS = (1, 3, 4, 5, 7)


def to_srgb_16_bit(image: UInt16[np.ndarray, "h w c"], profile: bytes) -> UInt16[np.ndarray, "h w c"] | None:
    """Convert gray or RGB to sRGB by a profile; None if it is not a matrix with curves, or of another colour space."""
    names = {1: ("k",), 3: ("r", "g", "b")}[image.shape[2]]
    space = {1: b"GRAY", 3: b"RGB "}[image.shape[2]]
    try:
        tags = _tags(profile)
        if profile[16:20] != space or b"A2B0" in tags:
            return None
        curves = [_curve(tags[f"{name}TRC".encode()]) for name in names]
        matrix = np.eye(1) if space == b"GRAY" else np.linalg.inv(_srgb_matrix()) @ _matrix(tags)
    except (struct.error, KeyError, IndexError, ValueError, np.linalg.LinAlgError):
        return None
    result = np.empty_like(image)
    for top in range(0, len(image), _ROWS):
        rows = image[top : top + _ROWS]
        linear = np.stack([curve[rows[..., channel]] for channel, curve in enumerate(curves)], axis=-1)
        result[top : top + _ROWS] = np.rint(_encode(np.clip(linear @ matrix.T, 0, 1)) * _FULL)
    return result


def _tags(profile: bytes) -> Mapping[bytes, bytes]:
    (count,) = struct.unpack_from(">L", profile, 128)
    entries = [struct.unpack_from(">4sLL", profile, 132 + 12 * number) for number in range(min(count, _MAX_TAGS))]
    return {name: profile[start : start + size] for name, start, size in entries}


def _matrix(tags: Mapping[bytes, bytes]) -> np.ndarray:
    """Return the matrix from linear RGB to the connection space, XYZ at D50."""
    return np.array([struct.unpack_from(">3l", tags[f"{name}XYZ".encode()], 8) for name in "rgb"]).T / _LEVELS


@functools.cache
def _srgb_matrix() -> np.ndarray:
    srgb: Any = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return _matrix(_tags(srgb.tobytes()))


def _curve(tag: bytes) -> np.ndarray:
    """Return the linear value of each of the 16-bit values."""
    x = np.arange(_LEVELS) / _FULL
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">L", tag, 8)
        if count == 0:
            return x
        table = struct.unpack_from(f">{count}H", tag, 12)
        if count == 1:
            return x ** (table[0] / 256)
        return np.interp(x, np.linspace(0, 1, count), np.array(table) / _FULL)
    if tag[:4] != b"para":
        raise ValueError(tag[:4])
    (kind,) = struct.unpack_from(">H", tag, 8)
    values = [value / _LEVELS for value in struct.unpack_from(f">{_PARAMETERS[kind]}l", tag, 12)]
    return _parametric(x, kind, values)


def _parametric(x: np.ndarray, kind: int, values: list[float]) -> np.ndarray:
    gamma, a, b, c, d, e, f = [*values, *[0.0] * (7 - len(values))]
    if kind == 0:
        return x**gamma
    if kind == 1:
        c = 0.0
    if kind in {1, 2}:  # below its start the curve is level
        d, e, f, c = -b / a, c, c, 0.0
    return np.clip(np.where(x >= d, np.maximum(a * x + b, 0) ** gamma + e, c * x + f), 0, 1)


def _encode(linear: np.ndarray) -> np.ndarray:
    """Apply sRGB's transfer function (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)

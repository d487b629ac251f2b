"""How a photo has to be turned to stand upright.

EXIF is read by hand, one tag of it: a general parser refuses a photo because a lens's name is damaged.
"""

from __future__ import annotations

import re
import struct

import numpy as np

_ORIENTATION = 0x0112
_UNSIGNED = {1: "B", 3: "H", 4: "L"}  # by EXIF's type number
_MAX_ENTRIES = 1024
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_LAST = 8


def find_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return EXIF's orientation, 1 to 8; that of XMP where EXIF says none, and 1 where neither can be read."""
    found = _in_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else 1
    return found if 1 <= found <= _LAST else 1


def _in_exif(exif: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}L", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, _MAX_ENTRIES), 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION and kind in _UNSIGNED:
                return struct.unpack_from(order + _UNSIGNED[kind], exif, entry + 8)[0]
    except struct.error:  # it ends before what it announces
        return None
    return None


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image, (height, width, ...), by an orientation; returns a view."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels

"""How a photo has to be turned to stand upright.

EXIF is read by hand, one tag of it: a general parser refuses a photo because a lens's name is damaged.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

_ORIENTATION = 0x0112
_UNSIGNED = {1: "B", 3: "H", 4: "L"}  # by EXIF's type number
_MAX_ENTRIES = 1024
_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return EXIF's orientation, 1 to 8; that of XMP where EXIF says none, and 1 where neither can be read."""
    found = _in_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else 1
    return found if found in _TRANSPOSED else 1


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


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by an orientation."""
    return image.transpose(_TRANSPOSED[orientation]) if orientation in _TRANSPOSED else image

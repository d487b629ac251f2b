"""Colour profiles: applied by what they do, not by their name."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 2**24
"""Real ones have up to some 4 MB (a printer's tables)."""

_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_GRID_STEPS = 9
# A round trip through the colour engine moves values by one.
_ROUNDING = 1


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, Literal["colour-space", "profile"] | None]:
    """Convert an image to sRGB by its profile.

    Args:
        image: Mode L, RGB or CMYK.
        profile: ICC profile of its pixels.

    Returns:
        The image in mode RGB, and a note: `colour-space` if it was converted, None if the profile is sRGB, whatever its
        name, and `profile` if it cannot be read or is of another colour space, so that the image counts as sRGB.
    """
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile[:MAX_PROFILE_BYTES]))
        mode = _MODES.get(source.profile.xcolor_space.strip())
        if image.mode == "L" and mode == "RGB":
            image = image.convert("RGB")  # gray pixels of a colour profile lie on its neutral axis
        if mode is None or mode != image.mode:
            return image.convert("RGB"), "profile"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if _is_identity(transform, mode):
            return (image if mode == "RGB" else image.convert("RGB")), None  # Pillow would copy
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        converted = None
    return (image.convert("RGB"), "profile") if converted is None else (converted, "colour-space")


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    steps = np.linspace(0, 255, _GRID_STEPS).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    probes = grays if mode == "L" else np.concatenate([grays, colours])
    converted = ImageCms.applyTransform(Image.fromarray(probes[None]).convert(mode), transform)
    difference = np.asarray(converted, np.int16) - probes[None]
    return bool(np.abs(difference).max() <= _ROUNDING)

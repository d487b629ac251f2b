"""Decodes photo files of any common kind to uint8 sRGB.

Guarantees: EXIF rotation is applied, colour profiles are converted to sRGB, gray, palette, CMYK and 16-bit
images are converted, alpha is composited on white (or refused), of several frames or pages the first is decoded.
An image that cannot be decoded completely is refused with a reason. No setting of Pillow's is changed.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from shards.format.rejects import RejectReason

# What Pillow's plugins say of a file that ends too early.
_TRUNCATION = re.compile(r"truncat|premature|unexpected end|not enough|no more data|buffer underrun", re.I)


_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


# What Pillow's plugins raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, MemoryError)


class DecodeError(Exception):
    """An image cannot be decoded; carries the reason that a reject is counted under."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail


def decode_photo(
    data: bytes, *, max_pixels: int, alpha: Literal["composite", "reject"] = "composite"
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file.

    Args:
        data: A PNG, JPEG, WebP, TIFF or BMP file.
        max_pixels: Larger images are refused before their pixels are read.
        alpha: What to do with transparency: composite it on white, or refuse an image with a pixel that is not opaque.

    Returns:
        sRGB, 0 to 255. 16-bit values lose their low byte.

    Raises:
        DecodeError: The image is truncated, no image, too large, unreadable, or transparent where that is refused.
    """
    if not data:
        raise DecodeError("truncated", "the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow only warns above 89 Mpixel; our own limit below decides.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_size(image, max_pixels)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return np.ascontiguousarray(_to_srgb(image, alpha))
    except Image.DecompressionBombError as error:
        raise DecodeError("too-large", f"above the limit of {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise DecodeError("not-an-image", "no known image format begins like this") from error
    except _DAMAGE as error:
        detail = re.sub(r" at 0x[0-9a-f]+", "", str(error)) or type(error).__name__
        raise DecodeError("truncated" if _TRUNCATION.search(detail) else "unreadable", detail) from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise DecodeError("too-large", f"{image.width}x{image.height} px is above the limit of {max_pixels} pixels")


def _to_srgb(image: Image.Image, transparency: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise DecodeError("unreadable", "floating-point pixels have no known range; convert to 8 or 16 bit")
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    alpha = None
    if image.mode in {"LA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if transparency == "reject" and np.asarray(alpha).min() < 255:
            raise DecodeError("transparent", "it has pixels that are not opaque; --alpha composite puts them on white")
        image = image.convert("RGB")
    image = _apply_profile(image)
    if alpha is not None:
        white = Image.new("RGB", image.size, (255, 255, 255))
        image = Image.composite(image, white, alpha)
    return image


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError("unreadable", f"gray values from {values.min()} to {values.max()} fit no 16 bits")
    # The high byte, as Pillow itself takes it for 16-bit colour.
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _apply_profile(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image if image.mode == "RGB" else image.convert("RGB")  # Pillow would copy
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image.convert("RGB")  # a round trip through the colour engine could move values by one
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES.get(image.mode):
            return image.convert("RGB")  # a profile of another colour space says nothing about these pixels
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise DecodeError("unreadable", f"its colour profile cannot be applied: {error}") from error
    if converted is None:
        raise DecodeError("unreadable", "its colour profile cannot be applied")
    return converted

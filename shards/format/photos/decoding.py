"""Decodes photo files of any common kind to uint8 sRGB.

Guarantees: orientation is applied, colour profiles are converted to sRGB, gray, palette, CMYK and 16-bit images are
converted, alpha is composited on white (or refused), of several frames or pages the first is decoded. No other metadata
is looked at, and none can refuse a photo. An image that cannot be decoded completely is refused with a reason. No
setting of Pillow's is changed.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from shards.format.photos.errors import DecodeError
from shards.format.photos.formats import open_image
from shards.format.photos.metadata import Essentials, essentials, has_signature
from shards.format.photos.orientation import find_orientation, upright
from shards.format.photos.profiles import to_srgb
from shards.format.photos.tiff import describe_layout, is_tiff
from shards.format.rejects import PhotoNote

# What Pillow's plugins say of a file that ends too early.
_TRUNCATION = re.compile(r"truncat|premature|unexpected end|not enough|no more data|buffer underrun", re.I)


class DecodedPhoto(NamedTuple):
    """A photo's pixels, and what was in the file beyond them."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """sRGB."""
    notes: tuple[PhotoNote, ...]
    """What was lost or assumed, sorted."""


def decode_photo(
    data: bytes, *, max_pixels: int, alpha: Literal["composite", "reject"] = "composite"
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file; see `read_photo`.

    Returns:
        sRGB, 0 to 255. 16-bit values lose their low byte.

    Raises:
        DecodeError: The image is truncated, no image, too large, unreadable, or transparent where that is refused.
    """
    return read_photo(data, max_pixels=max_pixels, alpha=alpha).pixels


def read_photo(data: bytes, *, max_pixels: int, alpha: Literal["composite", "reject"] = "composite") -> DecodedPhoto:
    """Decode the bytes of an image file, and say what was lost or assumed.

    Args:
        data: A PNG, JPEG, WebP, TIFF, BMP, AVIF, JPEG 2000, GIF or PNM file; HEIF where pillow-heif is installed.
        max_pixels: Larger images are refused before their pixels are read.
        alpha: What to do with transparency: composite it on white, or refuse an image with a pixel that is not opaque.

    Raises:
        DecodeError: The image is truncated, no image, too large, unreadable, or transparent where that is refused.
            Nothing else is raised, whatever the bytes.
    """
    with only_decode_errors(data, max_pixels):
        return _decode(data, max_pixels, alpha)


@contextlib.contextmanager
def only_decode_errors(data: bytes, max_pixels: int) -> Iterator[None]:
    """Turn whatever decoding a file raises in the block into a `DecodeError`."""
    if not data:
        raise DecodeError("truncated", "the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow only warns above 89 Mpixel; our own limit below decides.
            warnings.simplefilter("ignore")
            yield
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError("too-large", f"above the limit of {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        if has_signature(data):
            raise DecodeError("unreadable", _unsupported(data)) from error
        raise DecodeError("not-an-image", "no known image format begins like this") from error
    # Plugins raise whatever their parsing stumbles on: struct.error, ZeroDivisionError, AttributeError and more.
    except Exception as error:
        detail = re.sub(r" at 0x[0-9a-f]+", "", str(error)) or type(error).__name__
        raise DecodeError("truncated" if _TRUNCATION.search(detail) else "unreadable", detail) from error


def _unsupported(data: bytes) -> str:
    layout = describe_layout(data) if is_tiff(data) else ""
    if layout:
        return f"a TIFF of this layout is not supported ({layout}); save it as PNG"
    return "its header is damaged, or its pixels are stored in a way that is not supported"


def _decode(data: bytes, max_pixels: int, transparency: str) -> DecodedPhoto:
    file = essentials(data)
    images = [open_image(part) for part in file.parts]
    notes: set[PhotoNote] = set()
    if has_frames(file, images):
        notes.add("frames")
    load(images, max_pixels)
    if is_deep(file, images):
        notes.add("depth")
    colour, alpha = split_8_bit(file, images)
    if alpha is not None and alpha.getextrema() != (255, 255):
        if transparency == "reject":
            raise DecodeError("transparent", "it has pixels that are not opaque; --alpha composite puts them on white")
        notes.add("transparency")
    orientation, profile = find_metadata(images[0], file)
    rgb = _to_rgb(colour, profile, notes)
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (255, 255, 255)), alpha)
    pixels = np.ascontiguousarray(upright(np.asarray(rgb), orientation))
    return DecodedPhoto(pixels, cast("tuple[PhotoNote, ...]", tuple(sorted(notes))))


def load(images: Sequence[Image.Image], max_pixels: int) -> None:
    """Decode the pixels of a file's parts, unless they are too many."""
    for image in images:
        if image.width * image.height > max_pixels:
            size = f"{image.width}x{image.height} px"
            raise DecodeError("too-large", f"{size} is above the limit of {max_pixels} pixels")
        image.load()


def has_frames(file: Essentials, images: Sequence[Image.Image]) -> bool:
    """Return whether a file has further frames or pages."""
    try:
        return file.has_more or bool(getattr(images[0], "is_animated", False))
    except (EOFError, OSError, ValueError, IndexError, SyntaxError):
        return True  # a second frame that cannot be read is none that is needed


def is_deep(file: Essentials, images: Sequence[Image.Image]) -> bool:
    """Return whether samples have more than 8 bits."""
    return file.bits > 8 or images[0].mode.startswith("I")


def split_8_bit(file: Essentials, images: Sequence[Image.Image]) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of loaded parts, in mode L, RGB or CMYK, and the alpha channel where there is one."""
    planes = [_to_8_bit(image, file) for image in images]
    colour, alpha = _split_alpha(Image.merge(file.mode, planes) if file.mode else planes[0])
    # Photoshop writes BMP files with a channel of zeros, which viewers show opaque.
    if alpha is not None and images[0].format == "BMP" and alpha.getextrema() == (0, 0):
        alpha = None
    return colour, alpha


def find_metadata(image: Image.Image, file: Essentials) -> tuple[int, bytes | None]:
    """Return orientation and profile: those read from the file here, else those that a plugin passed on unread."""
    exif, xmp, profile = (image.info.get(key) for key in ("exif", "xmp", "icc_profile"))
    orientation = file.orientation
    if orientation == 1:
        orientation = find_orientation(*(value if isinstance(value, bytes) else b"" for value in (exif, xmp)))
    if file.profile is not None:
        profile = file.profile
    return orientation, profile if isinstance(profile, bytes) else None


def _to_8_bit(image: Image.Image, file: Essentials) -> Image.Image:
    if image.mode == "F":
        raise DecodeError("unreadable", "floating-point pixels have no known range; convert to 8 or 16 bit")
    if not image.mode.startswith("I"):
        return image.convert("LA") if file.is_gray and image.mode == "RGBA" else image
    values, bits = gray_values(image, file)
    # The high byte, as Pillow itself takes it for 16-bit colour.
    high = (values >> (bits - 8)).astype(np.uint8)
    gray = Image.fromarray(255 - high if file.is_white_zero else high)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def gray_values(image: Image.Image, file: Essentials) -> tuple[np.ndarray, int]:
    """Return the values of a gray image of more than 8 bits, and their number of bits."""
    values = np.asarray(image).astype(np.int64)
    bits = file.bits if 8 < file.bits < 16 and image.format == "TIFF" else 16
    if values.min() < 0 or values.max() >= 2**bits:
        raise DecodeError("unreadable", f"gray values from {values.min()} to {values.max()} fit no {bits} bits")
    return values, bits


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours, in mode L, RGB or CMYK, and the alpha channel where there is one."""
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode in {"LA", "La"}:
        image = image.convert("LA")
        return image.getchannel("L"), image.getchannel("A")
    if image.mode in {"RGBA", "RGBa"} or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        is_gray = image.mode in {"1", "L"}
        return image.convert("L" if is_gray else "RGBA").convert("L" if is_gray else "RGB"), alpha
    if image.mode == "1":
        return image.convert("L"), None
    return (image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")), None


def _to_rgb(colour: Image.Image, profile: bytes | None, notes: set[PhotoNote]) -> Image.Image:
    if profile is None:
        if colour.mode == "CMYK":
            notes.add("colour-space")
        return colour if colour.mode == "RGB" else colour.convert("RGB")  # Pillow would copy
    rgb, note = to_srgb(colour, profile)
    if note is not None:
        notes.add(note)
    return rgb

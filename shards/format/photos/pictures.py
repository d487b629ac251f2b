"""Decodes images to be upscaled as what they are: gray or colour, with or without alpha, of 8 or 16 bits.

Pillow gives the high byte alone of 16-bit colours. The low bytes come from decoding a second time, with the layout of
the samples given in the other byte order.
"""

from __future__ import annotations

import sys
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from shards.format.photos.decoding import (
    find_metadata,
    gray_values,
    has_frames,
    is_deep,
    load,
    only_decode_errors,
    split_8_bit,
)
from shards.format.photos.deep_profiles import to_srgb_16_bit
from shards.format.photos.errors import DecodeError
from shards.format.photos.formats import open_image
from shards.format.photos.metadata import Essentials, essentials
from shards.format.photos.orientation import upright
from shards.format.photos.profiles import to_srgb
from shards.format.rejects import PhotoNote

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_COLOURS = {"RGB": 3, "RGBX": 3, "RGBA": 4}
_FULL = 65535


class Picture(NamedTuple):
    """An image as it is in its file, upright and in sRGB."""

    colour: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
    """Gray (one channel) or RGB."""
    alpha: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | None
    """Opacity, of the same depth."""
    notes: tuple[PhotoNote, ...]
    """What was lost or assumed, sorted."""


def read_picture(data: bytes, *, max_pixels: int) -> Picture:
    """Decode the bytes of an image file, 16 bits whole where it is a PNG or TIFF.

    Args:
        data: A file of any format that `read_photo` reads.
        max_pixels: Larger images are refused before their pixels are read.

    Raises:
        DecodeError: As from `read_photo`, or the file has several frames or pages.
    """
    with only_decode_errors(data, max_pixels):
        return _decode(data, max_pixels)


def _decode(data: bytes, max_pixels: int) -> Picture:
    file = essentials(data)
    images = [open_image(part) for part in file.parts]
    if has_frames(file, images):
        raise DecodeError("unreadable", "it is an animation or has several pages; save each as a file of its own")
    load(images, max_pixels)
    notes: set[PhotoNote] = set()
    orientation, profile = find_metadata(images[0], file)
    colour_8, alpha_8 = split_8_bit(file, images)
    colour, is_converted = _in_srgb(colour_8, profile, notes)
    alpha = None if alpha_8 is None else np.asarray(alpha_8)
    if is_deep(file, images):
        deep = _split_16_bit(file, images, np.shape(colour)[2], alpha is not None)
        if deep is not None and is_converted:
            converted = to_srgb_16_bit(deep[0], profile or b"")
            deep = None if converted is None else (converted, deep[1])
        if deep is None:
            notes.add("depth")
        else:
            colour, alpha = deep
    return Picture(
        upright(colour, orientation),
        None if alpha is None else upright(alpha, orientation),
        cast("tuple[PhotoNote, ...]", tuple(sorted(notes))),
    )


def _in_srgb(colour: Image.Image, profile: bytes | None, notes: set[PhotoNote]) -> tuple[np.ndarray, bool]:
    """Return gray or RGB, and whether values were converted."""
    note = "colour-space" if colour.mode == "CMYK" else None
    rgb = None
    if profile is not None:
        rgb, note = to_srgb(colour, profile)
    if note is not None:
        notes.add(note)
    if colour.mode == "L":
        # Gray of a profile is gray in sRGB, up to rounding.
        gray = rgb.getchannel("G") if rgb is not None and note == "colour-space" else colour
        return np.asarray(gray)[..., None], note == "colour-space"
    return np.asarray(colour.convert("RGB") if rgb is None else rgb), note == "colour-space"


def _split_16_bit(
    file: Essentials, images: list[Image.Image], num_colours: int, has_alpha: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return colour and alpha of 16 bits; None where they cannot be had whole."""
    if file.mode in {"RGBa", "La", "CMYK"}:
        return None
    if images[0].mode.startswith("I"):
        samples = np.stack([_gray_16_bit(image, file) for image in images], axis=-1)
    else:
        samples = _colour_16_bit(file.parts[0], images[0])
    if samples is None:
        return None
    colour = samples[..., :num_colours]
    if not has_alpha:
        return colour, None
    if samples.shape[2] > num_colours:
        return colour, samples[..., num_colours]
    # One colour stands for what is transparent.
    transparent = np.asarray(images[0].info.get("transparency", -1))
    return colour, np.where((samples == transparent).all(axis=-1), 0, _FULL).astype(np.uint16)


def _gray_16_bit(image: Image.Image, file: Essentials) -> UInt16[np.ndarray, "h w"]:
    values, bits = gray_values(image, file)
    largest = 2**bits - 1
    scaled = (values * _FULL + largest // 2) // largest
    return (_FULL - scaled if file.is_white_zero else scaled).astype(np.uint16)


def _colour_16_bit(data: bytes, high: Image.Image) -> UInt16[np.ndarray, "h w c"] | None:
    image = open_image(data)
    layout = _layout(image)
    mode, _, order = layout.partition(";16")
    if layout == "LA;16B":  # four bytes a pixel, which mode RGBA hands on as they are
        _give_layout(image, "RGBA")
        return np.asarray(image).view(">u2").astype(np.uint16)
    if mode not in _COLOURS or order not in _OTHER_ORDER:
        return None
    _give_layout(image, f"{mode};16{_OTHER_ORDER[order]}")
    low = np.asarray(image)[..., : _COLOURS[mode]]
    return np.asarray(high)[..., : _COLOURS[mode]].astype(np.uint16) << 8 | low


def _layout(image: Image.Image) -> str:
    """Return how a file that is not loaded yet stores its samples, in Pillow's words."""
    arguments = image.tile[0][3] if image.tile else ""  # pyright: ignore[reportAttributeAccessIssue]
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _give_layout(image: Image.Image, layout: str) -> None:
    image.tile = [  # pyright: ignore[reportAttributeAccessIssue]
        tile._replace(args=layout if isinstance(tile.args, str) else (layout, *tile.args[1:]))
        for tile in image.tile  # pyright: ignore[reportAttributeAccessIssue]
    ]
    image.load()

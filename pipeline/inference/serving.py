"""The code that runs inside a registered version: arrays or pictures in, upscaled ones out.

A version ships a copy of it (`pipeline.inference.shipped`), so it imports only what is copied along. It knows no
MLflow: `pipeline.tracking.served_model` is the layer between.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pipeline.inference.tiles import DEFAULT_OVERLAP_PX, DEFAULT_TILE_PX
from pipeline.inference.upscale import Pixels, upscale
from pipeline.models.generators import Generator, load_generator
from shards.errors import InputError
from shards.format.photos import DecodeError, read_photo

COLUMN = "image"
"""Column, or key, of base64 pictures in a request, and in its response."""

_SHAPES = "n x height x width x 3, height x width x 3, or float n x 3 x height x width"
_SHOWN_CHARACTERS = 24


@dataclass(frozen=True)
class Upscaler:
    """A loaded generator.

    Attributes:
        generator: In evaluation mode, on its device.
        max_pixels: Larger pictures of a request are refused before their pixels are decoded.
    """

    generator: Generator
    max_pixels: int

    def predict(self, data: Any, tile_px: int = DEFAULT_TILE_PX) -> np.ndarray | list[dict[str, str]]:
        """Upscale images of any size.

        Args:
            data: Numbers: RGB, n x height x width x 3 or one image height x width x 3, integers in 0..255 or floats in
                [0, 1]; floats also n x 3 x height x width. Or pictures: base64 text of PNG, JPEG or WebP files, as a
                list, or in the column `image` of a table.
            tile_px: Largest side of a tile, in px of the input: less needs less memory.

        Returns:
            For numbers an array of the same layout: 8 bits for integers (16 for uint16), float32 in [0, 1] for floats.
            For pictures a list of tables with PNG files as base64 text in `image`.

        Raises:
            InputError: It is none of these, or memory ran out.
        """
        if isinstance(data, np.ndarray) and data.dtype.kind in "iuf":
            return self._upscale_array(data, tile_px)
        texts = _texts(data)
        return [{COLUMN: self._upscale_text(text, f"image {i + 1}", tile_px)} for i, text in enumerate(texts)]

    def _upscale_array(self, data: np.ndarray, tile_px: int) -> np.ndarray:
        # Versions registered before this file took float n x 3 x height x width alone.
        is_channels_first = data.ndim == 4 and data.shape[-1] != 3 and data.shape[1] == 3 and data.dtype.kind == "f"
        images = np.moveaxis(data, 1, -1) if is_channels_first else data
        if images.ndim not in {3, 4} or images.shape[-1] != 3 or not images.size:
            raise InputError(f"an array of shape {data.shape} is no RGB image; give {_SHAPES}")
        pixels = _as_pixels(images)
        if pixels.ndim == 3:
            return self._upscale(pixels, tile_px)
        upscaled = np.stack([self._upscale(image, tile_px) for image in pixels])
        return np.moveaxis(upscaled, -1, 1) if is_channels_first else upscaled

    def _upscale_text(self, text: object, name: str, tile_px: int) -> str:
        try:
            photo = read_photo(_decode_base64(text, name), max_pixels=self.max_pixels)
        except DecodeError as error:
            raise InputError(f"{name} cannot be used: {error}; give a PNG, JPEG or WebP file as base64") from error
        return to_base64(self._upscale(photo.pixels, tile_px))

    def _upscale(self, lq: Pixels, tile_px: int) -> Pixels:
        overlap_px = min(DEFAULT_OVERLAP_PX, tile_px // 2)
        return upscale(self.generator, lq, self.generator.scale, tile_px=tile_px, overlap_px=overlap_px)


def to_base64(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """Return a picture as the base64 text of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def load(weights: Path, network: str, device: str, max_pixels: int) -> Upscaler:
    """Load a version's generator.

    Args:
        weights: Its safetensors file.
        network: Module whose import registers its architecture.
        device: `cpu`, `cuda:0`, ..., or `auto`: the GPU where there is one.
        max_pixels: See `Upscaler`.

    Raises:
        InputError: The weights cannot be read.
    """
    importlib.import_module(network)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Upscaler(load_generator(weights).to(device), max_pixels)


def _as_pixels(images: np.ndarray) -> Pixels:
    """Return images as uint8, uint16 or float32; JSON has no types, so that its integers arrive as 64 bits."""
    if images.dtype in (np.uint8, np.uint16):
        return images
    is_float = images.dtype.kind == "f"
    highest = 1 if is_float else 255
    if not (images.min() >= 0 and images.max() <= highest):  # also NaN
        kind = "floats in [0, 1]" if is_float else "integers in 0..255"
        raise InputError(f"the values reach from {images.min():g} to {images.max():g}; give {kind}")
    return images.astype(np.float32 if is_float else np.uint8)


def _texts(data: Any) -> Sequence[object]:
    """Return the base64 texts of a request: a table's or dictionary's column, a list, or one text."""
    columns = data.keys() if hasattr(data, "keys") else None
    if columns is not None:
        if COLUMN not in columns:
            raise InputError(
                f"the request has {', '.join(map(repr, columns)) or 'no columns'}, and no {COLUMN!r}; give pictures as "
                f"base64 text in {COLUMN!r}"
            )
        data = data[COLUMN]
    texts = np.asarray(data, dtype=object).reshape(-1).tolist()
    if not texts:
        raise InputError("the request holds no image; give at least one")
    return texts


def _decode_base64(text: object, name: str) -> bytes:
    if not isinstance(text, str):
        raise InputError(
            f"{name} is {type(text).__name__}, not text; give pictures as base64 text, or arrays {_SHAPES}"
        )
    # Browsers write `data:image/png;base64,` in front, and the command base64 breaks its lines.
    encoded = text.rpartition("base64,")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{name} is not base64 text (it begins with {text[:_SHOWN_CHARACTERS]!r}: {error}); encode a PNG, JPEG or "
            "WebP file, as with `base64 photo.png`"
        ) from error

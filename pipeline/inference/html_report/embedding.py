"""Pictures inside the page, as data URIs."""

from __future__ import annotations

import base64
import io

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

LARGEST_LOSSLESS_PIXELS = 1_000_000
JPEG_QUALITY = 95


def png_uri(image: UInt8[ndarray, "h w 3"]) -> str:
    """Return an image as a lossless data URI."""
    return _uri(image, "PNG")


def photo_uri(image: UInt8[ndarray, "h w 3"]) -> str:
    """Return a photo as a data URI: PNG, or JPEG at full chroma resolution where it is large; see `is_lossless`."""
    if is_lossless(image):
        return png_uri(image)
    return _uri(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)


def is_lossless(image: UInt8[ndarray, "h w 3"]) -> bool:
    """Return whether `photo_uri` keeps every pixel."""
    return image.shape[0] * image.shape[1] <= LARGEST_LOSSLESS_PIXELS


def _uri(image: ndarray, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"

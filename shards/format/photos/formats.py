"""Formats of photos that this machine reads. Pillow knows more, some of which start programs of their own (EPS)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io

from PIL import Image, features

# Listed in folders by these endings.
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "HEIF": (".heic", ".heif"),
}
_NAMED_ONLY = ("GIF", "PPM")
_FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
_HEIF_PACKAGE = "pillow_heif"


@functools.cache
def photo_suffixes() -> frozenset[str]:
    """Return the endings, in lower case, of files that count as photos here."""
    return frozenset(suffix for name in _SUFFIXES if _has_decoder(name) for suffix in _SUFFIXES[name])


def _has_decoder(name: str) -> bool:
    if name == "HEIF":
        return importlib.util.find_spec(_HEIF_PACKAGE) is not None
    return name not in _FEATURES or bool(features.check(_FEATURES[name]))


@functools.cache
def _formats() -> tuple[str, ...]:
    if _has_decoder("HEIF"):
        importlib.import_module(_HEIF_PACKAGE).register_heif_opener()
    Image.init()
    return tuple(name for name in (*_SUFFIXES, *_NAMED_ONLY) if name in Image.OPEN and _has_decoder(name))


def open_image(data: bytes) -> Image.Image:
    """Open an image in one of these formats; its pixels are not read yet."""
    return Image.open(io.BytesIO(data), formats=_formats())

"""Depth and layout of photos: right, or refused by name, and what is lost is noted."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from photo_files import colours, decode, encode, gradient, notes, tiff, with_png_chunk
from PIL import Image

from shards.format.photos import DecodeError

DEEP = gradient().astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff([DEEP], 2), gradient()),
        (tiff(list(np.moveaxis(DEEP, 2, 0)), 2), gradient()),
        (tiff(list(np.moveaxis(gradient(), 2, 0)), 2), gradient()),
        (tiff([65535 - DEEP[..., 0]], 0), gradient()[..., :1]),
        (tiff([255 - gradient()[..., 0]], 0), gradient()[..., :1]),
        (tiff([DEEP[..., 0]], 1), gradient()[..., :1]),
        (tiff([DEEP[..., 0], np.full_like(DEEP[..., 0], 65535)], 1, extra=2), gradient()[..., :1]),
        (tiff([*np.moveaxis(DEEP, 2, 0), np.full_like(DEEP[..., 0], 65535)], 2, extra=2), gradient()),
        (tiff([*np.moveaxis(DEEP, 2, 0), np.zeros_like(DEEP[..., 0])], 2, extra=0), gradient()),
        (encode(Image.frombytes("I;16B", (32, 24), DEEP[..., 0].astype(">u2").tobytes()), "TIFF"), gradient()[..., :1]),
    ],
)
def test_tiff_layouts_give_their_pixels(data: bytes, expected: np.ndarray) -> None:
    assert np.array_equal(decode(data), np.broadcast_to(expected, (24, 32, 3)))


def test_tiff_of_12_bits_gives_the_high_bits() -> None:
    packed = bytearray()
    for left, right in (DEEP[..., 0] >> 4).reshape(-1, 2).tolist():
        packed += bytes([left >> 4, (left & 15) << 4 | right >> 8, right & 255])
    data = tiff([DEEP[..., 0]], 1)
    end = 8 + DEEP[..., 0].nbytes
    data = data[:8] + bytes(packed) + data[8 + len(packed) :]
    data = data[:end] + data[end:].replace(struct.pack("<HHLL", 258, 3, 1, 16), struct.pack("<HHLL", 258, 3, 1, 12))
    assert np.array_equal(decode(data)[..., 0], gradient()[..., 0])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tiff([gradient()[..., 0].astype(np.uint32)], 1), "32-bit integers have no known"),
        (tiff([gradient().astype(np.uint32)], 2), "32-bit integers have no known"),
        (
            tiff([gradient()[..., 0].astype(np.float32)], 1, sample_format=3),
            "floating-point pixels have no known",
        ),
        (tiff([gradient().astype(np.float16)], 2, sample_format=3), "floating-point pixels have no known"),
        (tiff([gradient()[..., 0].astype(np.int16)], 1, sample_format=2), "signed integers have no known"),
        (tiff([gradient()[..., 0].astype(np.int8)], 1, sample_format=2), "signed integers have no known"),
        (
            tiff([DEEP[..., :2]], 1, extra=2),
            r"TIFF of this layout is not supported \(gray, 2 sample\(s\) of 16 bits, interleaved, compression 1\)",
        ),
    ],
)
def test_tiff_when_its_values_have_no_known_range_is_refused_by_name(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=text) as caught:
        decode(data)
    assert caught.value.reason == "unreadable"


def test_16_bit_gray_png_when_a_gray_is_transparent_is_composited() -> None:
    data = with_png_chunk(
        encode(Image.fromarray(np.array([[1000, 40_000]], np.uint16))), b"tRNS", struct.pack(">H", 1000)
    )
    assert decode(data)[0, :, 0].tolist() == [255, 40_000 >> 8]
    assert notes(data) == ("depth", "transparency")


def codestream_of_16_bits() -> bytes:
    """JPEG 2000 without boxes; its pixels do not matter."""
    data = bytearray(encode(Image.fromarray(gradient()), "JPEG2000", no_jp2=True))
    assert data[40:49] == b"\0\3" + b"\7\1\1" * 2 + b"\7"  # components, and each one's bits - 1 and sampling
    data[42:51:3] = b"\x0f" * 3
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(Image.fromarray(DEEP[..., 0])), ("depth",)),
        (tiff([DEEP], 2), ("depth",)),
        (b"P6 32 24\n# 300 dpi\n65535\n" + DEEP.astype(">u2").tobytes(), ("depth",)),
        (b"P5 32 24 1023 " + (DEEP[..., 0] >> 6).astype(">u2").tobytes(), ("depth",)),
        (b"P6 32 24 255\n" + gradient().tobytes(), ()),
        (codestream_of_16_bits(), ("depth",)),
        (encode(colours(), "JPEG2000", no_jp2=True), ()),
        (encode(colours().convert("CMYK"), "TIFF"), ("colour-space",)),
        (encode(colours(), "GIF", save_all=True, append_images=[colours().rotate(180)]), ("frames",)),
        (encode(colours(), "PNG", save_all=True, append_images=[colours().rotate(180)]), ("frames",)),
        (encode(colours(), "WEBP", save_all=True, append_images=[colours().rotate(180)]), ("frames",)),
        (encode(colours(), "TIFF", save_all=True, append_images=[colours().rotate(180)]), ("frames",)),
        (encode(Image.new("RGBA", (2, 2), (1, 2, 3, 254))), ("transparency",)),
        (encode(Image.new("RGBA", (2, 2), (1, 2, 3, 255))), ()),
    ],
)
def test_notes_say_what_is_lost(data: bytes, expected: tuple[str, ...]) -> None:
    assert notes(data) == expected

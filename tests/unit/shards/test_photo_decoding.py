"""Decoding of photos of every format: their pixels, transparency, and whatever is damaged at random."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from photo_files import MAX_PIXELS, colours, decode, encode, mutations, one_of_every_format
from PIL import Image, ImageFile

from shards.format.photos import DecodeError
from shards.write.sources import discover
from shards.write.survey import Photo, SurveyTask, survey


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_decode_when_lossless_gives_the_pixels(kind: str) -> None:
    assert np.array_equal(decode(encode(colours(), kind)), np.asarray(colours()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_decode_when_lossy_is_near(kind: str) -> None:
    # Chroma is stored at half the resolution, so colours only agree away from edges.
    large = colours().resize((96, 64), Image.Resampling.NEAREST)
    difference = decode(encode(large, kind, quality=95)).astype(int) - np.asarray(large)
    assert np.abs(difference[:, :40]).max() <= 6


def test_decode_when_palette_or_gray_gives_rgb() -> None:
    assert np.array_equal(decode(encode(colours().convert("P", palette=Image.Palette.ADAPTIVE))), colours())
    gray = Image.fromarray(np.full((2, 3), 77, np.uint8))
    assert np.array_equal(decode(encode(gray)), np.full((2, 3, 3), 77))
    bilevel = Image.fromarray(np.array([[True, False]]))
    assert decode(encode(bilevel))[0, :, 0].tolist() == [255, 0]


def test_decode_when_16_bit_takes_the_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    assert decode(encode(Image.fromarray(values)))[0, :, 1].tolist() == [0, 0, 1, 0x12, 255]


def test_decode_when_cmyk_gives_rgb() -> None:
    ink = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    assert decode(encode(ink, "TIFF"))[0, 0].tolist() == [0, 255, 255]


def test_decode_when_transparent_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (100, 0, 0, 255))
    image.putpixel((1, 0), (100, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    assert decode(encode(image))[0].tolist() == [[100, 0, 0], [255, 255, 255], [204, 204, 204]]


def test_decode_when_colour_has_16_bits_takes_the_high_bytes() -> None:
    values = np.array([[[0x1234, 0xFFFF, 0x00FF], [0x0100, 0x80FF, 0xABCD]]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    assert decode(data)[0].tolist() == [[0x12, 0xFF, 0x00], [0x01, 0x80, 0xAB]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_when_not_wanted_is_rejected_and_opaque_alpha_is_not(mode: str, tmp_path: Path) -> None:
    opaque = colours().convert(mode)
    holed = colours().convert("RGBA")
    holed.putpixel((0, 0), (1, 2, 3, 254))
    holed = holed.quantize() if mode == "P" else holed.convert(mode)
    for name, image in {"opaque.png": opaque, "holed.png": holed}.items():
        image.save(tmp_path / name)
    task = SurveyTask(discover([tmp_path]), 1, MAX_PIXELS, {}, "reject")
    found = {type(result).__name__: result for result in survey(task)}
    assert found["Photo"].name.endswith("/opaque.png")
    assert (found["Reject"].reason, found["Reject"].path.rpartition("/")[2]) == ("transparent", "holed.png")
    assert "--alpha composite" in found["Reject"].detail
    assert all(isinstance(result, Photo) for result in survey(dataclasses.replace(task, alpha="composite")))


def test_decode_when_a_jpeg_has_ink_gives_rgb() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(encode(ink, "JPEG", quality=95))[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_decode_when_cut_short_is_refused_and_pillow_is_left_alone(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    data = encode(noise, kind)
    limits = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    with pytest.raises(DecodeError):
        decode(data[: len(data) * 2 // 3])
    assert limits == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def test_formats_that_start_programs_are_no_photos() -> None:
    with pytest.raises(DecodeError, match="no known image format"):
        decode(encode(colours(), "EPS"))


def check_mutations(count: int, seed: int) -> None:
    """Every damaged file gives pixels or a `DecodeError`."""
    files = one_of_every_format()
    assert all(decode(data).shape == (16, 16, 3) for data in files.values())
    num_decoded = 0
    for name, data in mutations(files, count, seed):
        try:
            pixels = decode(data)
        except DecodeError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}, {data.hex()}") from error
        num_decoded += 1
        assert pixels.dtype == np.uint8, name
        assert pixels.ndim == 3, name
        assert pixels.shape[2] == 3, name
    assert count / 10 < num_decoded < count / 2


def test_decode_when_files_are_damaged_at_random_raises_decode_errors_alone() -> None:
    check_mutations(1000, seed=0)


@pytest.mark.slow
def test_decode_when_many_files_are_damaged_at_random_raises_decode_errors_alone() -> None:
    check_mutations(50_000, seed=1)

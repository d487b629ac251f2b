"""Decoding of photos: depth, layout, colour, orientation; and that metadata never costs a photo."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from photo_files import (
    ORIENTATION_6,
    encode,
    exif,
    gradient,
    icc_profile,
    mutations,
    one_of_every_format,
    png_chunk,
    tiff,
    with_png_chunk,
)
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from shards.format.photos import DecodeError, decode_photo, read_photo
from shards.write.sources import discover
from shards.write.survey import Photo, SurveyTask, survey

LIMIT = 10_000


def colours() -> Image.Image:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :3], image[:, 3:] = (200, 30, 60), (10, 220, 90)
    return Image.fromarray(image)


def decode(data: bytes) -> np.ndarray:
    return decode_photo(data, max_pixels=LIMIT)


def notes(data: bytes) -> tuple[str, ...]:
    return read_photo(data, max_pixels=LIMIT).notes


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


def test_decode_when_exif_says_rotated_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    turned = decode(encode(colours(), "PNG", exif=exif))
    assert np.array_equal(turned, np.rot90(np.asarray(colours()), -1))


def test_decode_when_profile_is_not_srgb_converts() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = decode(encode(colours(), "PNG", icc_profile=lab.tobytes()))
    assert np.array_equal(same, np.asarray(colours()))
    assert notes(encode(colours(), "PNG", icc_profile=lab.tobytes())) == ()


def test_decode_when_the_profile_has_other_primaries_moves_the_colours() -> None:
    # sRGB with the places of red and green exchanged, under another name.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    named = swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    converted = decode(encode(colours(), "PNG", icc_profile=named)).astype(int)
    expected = np.asarray(colours())[..., [1, 0, 2]]
    assert np.abs(converted - expected).max() <= 3


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
    task = SurveyTask(discover([tmp_path]), 1, LIMIT, {}, "reject")
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "damage",
    [
        (0x011A, 10, 1, struct.pack("<ll", -1, 0)),  # XResolution, a signed rational -1/0
        (0x011A, 8, 1, struct.pack("<h", -5)),
        (0x011A, 1, 1, b"\x05"),
        (0x011A, 11, 1, struct.pack("<f", float("nan"))),
        (0x8769, 4, 1, struct.pack("<L", 2**31)),  # an EXIF directory far behind the end
        (0x927C, 7, 2**30, b"\xff\xff\xff\xff"),  # a maker note of 1 GiB
        (0x9C9B, 99, 7, b"what"),
    ],
)
def test_exif_when_another_tag_is_damaged_still_turns_the_photo(kind: str, damage: tuple) -> None:
    image = Image.fromarray(gradient())
    plain = decode(encode(image, kind, exif=exif(ORIENTATION_6)))
    assert plain.shape == (32, 24, 3)
    assert np.array_equal(decode(with_exif(image, kind, exif(ORIENTATION_6, damage))), plain)


def with_exif(image: Image.Image, kind: str, content: bytes) -> bytes:
    """Pillow writes EXIF as it is into all formats but TIFF, whose own directory it is."""
    if kind == "TIFF":
        entries = content[14:]
        data = tiff([np.asarray(image)], 2)
        start = struct.unpack_from("<L", data, 4)[0]
        count, extra = struct.unpack_from("<H", data, start)[0], struct.unpack_from("<H", entries)[0]
        table = data[start + 2 : start + 2 + 12 * count] + entries[2 : 2 + 12 * extra]
        rows = sorted(table[at : at + 12] for at in range(0, len(table), 12))
        rows.sort(key=lambda row: struct.unpack("<H", row[:2]))
        tail = struct.pack("<H", count + extra) + b"".join(rows) + bytes(4)
        return data[:4] + struct.pack("<L", len(data)) + data[8:] + tail
    return encode(image, kind, exif=content)


@pytest.mark.parametrize(
    "exif_of", [lambda data: data[:20], lambda data: b"Exif\0\0XX" + data[8:], lambda data: b"Exif\0\0"]
)
def test_exif_when_it_is_no_exif_is_ignored(exif_of) -> None:
    data = encode(Image.fromarray(gradient()), "JPEG", exif=exif_of(exif(ORIENTATION_6)))
    assert decode(data).shape == (24, 32, 3)


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_turns_as_pillow_does(orientation: int) -> None:
    data = encode(Image.fromarray(gradient()), "JPEG", exif=exif((0x0112, 3, 1, struct.pack("<H", orientation))))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), expected)


def test_orientation_when_it_stands_in_text_or_xmp_alone_is_applied() -> None:
    image = Image.fromarray(gradient())
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    hexadecimal = PngImagePlugin.PngInfo()
    raw = exif(ORIENTATION_6)
    hexadecimal.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    for data in (encode(image, pnginfo=text), encode(image, pnginfo=hexadecimal), encode(image, "JPEG", xmp=xmp)):
        assert decode(data).shape == (32, 24, 3)
    for value in (b"='6'", b">6<"):  # as ExifTool writes it
        assert decode(encode(image, "JPEG", xmp=xmp.replace(b'="6"', value))).shape == (32, 24, 3)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_png_when_its_text_is_long_or_damaged_is_used(kind: bytes) -> None:
    plain = encode(colours())
    body = {
        b"zTXt": b"history\0\0" + zlib.compress(bytes(80_000_000)),
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"edit " * 480_000),
        b"tEXt": b"history\0" + b"edit " * 480_000,
    }[kind]
    for damaged in (body, body[:-9], b"", b"\0" * 9, b"x" * 200):
        assert np.array_equal(decode(with_png_chunk(plain, kind, damaged)), np.asarray(colours()))
    broken = png_chunk(kind, body)[:-1] + b"!"  # its CRC is wrong
    assert np.array_equal(decode(plain[:33] + broken + plain[33:]), np.asarray(colours()))


def test_jpeg_when_its_segments_are_damaged_is_used() -> None:
    plain = encode(Image.fromarray(gradient()), "JPEG")
    segments = b"\xff\xe2\x00\x0cMPF\0II*\0\xff\xff" + b"\xff\xed\x00\x11Photoshop 3.0\0\x38"
    segments += b"\xff\xfe\x00\x04\xff\0"
    assert np.array_equal(decode(plain[:2] + segments + plain[2:]), decode(plain))


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "linear Rec709 RGB", ""])
def test_profile_counts_by_what_it_does_whatever_its_name(name: str) -> None:
    flat = Image.new("RGB", (8, 8), (128, 128, 128))
    data = encode(flat, icc_profile=icc_profile(name, 1.0))
    assert set(decode(data).ravel()) == {188}  # linear 128/255 in sRGB
    assert notes(data) == ("colour-space",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_profile_is_applied_in_every_format(kind: str) -> None:
    flat = Image.new("RGB", (16, 16), (128, 128, 128))
    data = encode(flat, kind, icc_profile=icc_profile("linear", 1.0))
    assert np.abs(decode(data).astype(int) - 188).max() <= 2


def test_gray_profile_is_applied_at_every_depth() -> None:
    profile = icc_profile("Dot Gain 20%", 1.75, gray=True)
    gray8 = Image.new("L", (8, 8), 128)
    gray16 = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    files = [encode(image, icc_profile=profile) for image in (gray8, gray16, gray8.convert("LA"))]
    files.append(encode(gray16, "TIFF", icc_profile=profile))
    assert {value for data in files for value in decode(data).ravel().tolist()} == {149}
    # A gray image under a colour profile lies on its neutral axis.
    assert set(decode(encode(gray8, icc_profile=icc_profile("linear", 1.0))).ravel()) == {188}


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        icc_profile("no curve", 1.0, omit=(b"gTRC",)),
        icc_profile("gray", 1.8, gray=True),  # of another colour space than the pixels
        icc_profile("cut", 1.0)[:200],
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profile_when_unreadable_counts_as_srgb_and_is_noted(kind: str, profile: bytes) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(colours(), kind, icc_profile=profile, **options)
    assert np.array_equal(decode(data), decode(encode(colours(), kind, **options)))
    assert notes(data) == ("profile",)


def test_png_profile_when_long_is_applied_and_a_bomb_is_not() -> None:
    flat, profile = encode(Image.new("RGB", (8, 8), (128, 128, 128))), icc_profile("linear", 1.0)
    long = profile + bytes(3_000_000)
    assert set(decode(with_png_chunk(flat, b"iCCP", b"p\0\0" + zlib.compress(long))).ravel()) == {188}
    for bad in (zlib.compress(bytes(50_000_000)), zlib.compress(profile)[:-9], b""):
        data = with_png_chunk(flat, b"iCCP", b"p\0\0" + bad)
        assert set(decode(data).ravel()) == {128}
        assert notes(data) == ("profile",)


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

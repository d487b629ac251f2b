"""Metadata of photos: orientation and colour profile are applied, and nothing else in it costs a photo."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from photo_files import (
    ORIENTATION_6,
    colours,
    decode,
    encode,
    exif,
    gradient,
    icc_profile,
    notes,
    png_chunk,
    tiff,
    with_png_chunk,
)
from PIL import Image, ImageCms, ImageOps, PngImagePlugin


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

"""Images to be upscaled are decoded as what they are: gray or colour, with or without alpha, of 8 or 16 bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from photo_files import ORIENTATION_6, encode, exif, gradient, icc_profile, mutations, one_of_every_format, tiff
from photo_files import with_png_chunk as with_chunk
from PIL import Image

from shards.format.photos import DecodeError, Picture, decode_photo, read_picture
from shards.format.photos.deep_profiles import _curve
from shards.format.png import picture_chunks

LIMIT = 10_000
SHAPE = (13, 17)


def read(data: bytes) -> Picture:
    return read_picture(data, max_pixels=LIMIT)


def noise(num_channels: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.RandomState(num_channels).randint(0, np.iinfo(dtype).max + 1, (*SHAPE, num_channels)).astype(dtype)


def png(pixels: np.ndarray) -> bytes:
    return b"".join(picture_chunks([pixels], len(pixels), {}))


def whole(picture: Picture) -> np.ndarray:
    return picture.colour if picture.alpha is None else np.dstack([picture.colour, picture.alpha])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
def test_png_gives_its_samples(num_channels: int, dtype: type) -> None:
    pixels = noise(num_channels, dtype)
    picture = read(png(pixels))
    assert picture.colour.dtype == dtype
    assert np.array_equal(whole(picture), pixels)
    assert picture.notes == ()


@pytest.mark.parametrize("is_planar", [False, True])
@pytest.mark.parametrize("num_channels", [3, 4])
def test_tiff_of_16_bits_gives_its_samples(num_channels: int, is_planar: bool) -> None:
    pixels = noise(num_channels)
    planes = list(np.moveaxis(pixels, 2, 0)) if is_planar else [pixels]
    assert np.array_equal(whole(read(tiff(planes, 2, extra=2 if num_channels == 4 else None))), pixels)


def test_compressed_tiff_of_16_bits_in_either_byte_order_gives_its_samples() -> None:
    gray = noise(1)[..., 0]
    for mode, order in (("I;16", "<u2"), ("I;16B", ">u2")):
        image = Image.frombytes(mode, SHAPE[::-1], gray.astype(order).tobytes())
        assert np.array_equal(read(encode(image, "TIFF", compression="tiff_lzw")).colour[..., 0], gray)


def test_tiff_where_white_is_zero_is_inverted() -> None:
    gray = noise(1)
    assert np.array_equal(read(tiff([65535 - gray[..., 0]], 0)).colour, gray)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_16_bit_png_when_one_colour_is_transparent_compares_all_bits(num_channels: int) -> None:
    pixels = noise(num_channels)
    pixels[0, 1] = pixels[0, 0] ^ 1  # the same high bytes
    picture = read(with_chunk(png(pixels), b"tRNS", struct.pack(f">{num_channels}H", *pixels[0, 0])))
    assert np.array_equal(picture.colour, pixels)
    assert picture.alpha is not None
    assert picture.alpha[0, :2].tolist() == [0, 65535]


def test_orientation_turns_colour_and_alpha() -> None:
    pixels = noise(4)
    picture = read(with_chunk(png(pixels), b"eXIf", exif(ORIENTATION_6)[6:]))
    assert np.array_equal(whole(picture), np.rot90(pixels, -1))


def test_gray_of_a_profile_is_converted_and_stays_gray() -> None:
    gray = gradient()[..., 0]
    data = encode(Image.fromarray(gray), icc_profile=icc_profile("gray", 1.0, gray=True))
    picture = read(data)
    assert picture.colour.shape == (24, 32, 1)
    assert np.array_equal(picture.colour[..., 0], decode_photo(data, max_pixels=LIMIT)[..., 1])
    assert picture.notes == ("colour-space",)


def with_profile(pixels: np.ndarray, profile: bytes) -> bytes:
    return with_chunk(png(pixels), b"iCCP", b"p\0\0" + zlib.compress(profile))


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_16_bits_of_a_profile_are_converted_whole(num_channels: int, gamma: float) -> None:
    pixels = noise(num_channels)
    data = with_profile(pixels, icc_profile("mine", gamma, gray=num_channels == 1))
    picture = read(data)
    assert picture.notes == ("colour-space",)
    assert picture.colour.dtype == np.uint16
    # The profile's primaries are sRGB's, rounded to four digits.
    expected = srgb_encoded((pixels / 65535) ** (round(gamma * 256) / 256)) * 65535
    assert np.median(np.abs(picture.colour - expected)) < 40
    by_8_bits = decode_photo(data, max_pixels=LIMIT)[..., :num_channels]
    assert np.abs(picture.colour / 257 - by_8_bits).mean() < (1.5 if gamma > 1 else 3)  # linear: 8 bits are coarse


def test_16_bits_of_a_wide_space_agree_with_the_colour_engine() -> None:
    # Adobe RGB with version 4's parametric curve; values whose low byte is that of an 8-bit image.
    profile = icc_profile("wide", 2.2)
    primaries = {b"r": (0.6097, 0.3111, 0.0195), b"g": (0.2053, 0.6257, 0.0609), b"b": (0.1492, 0.0632, 0.7446)}
    names = {b"r": (0.436, 0.2225, 0.0139), b"g": (0.3851, 0.7169, 0.0971), b"b": (0.1431, 0.0606, 0.7141)}
    for name, wide in primaries.items():
        old, new = (struct.pack(">lll", *(round(v * 65536) for v in values)) for values in (names[name], wide))
        profile = profile.replace(old, new)
    pixels = gradient(*SHAPE).astype(np.uint16) * 257
    data = with_profile(pixels, profile)
    by_8_bits = decode_photo(data, max_pixels=LIMIT)
    assert not np.array_equal(by_8_bits, gradient(*SHAPE))
    assert np.abs(read(data).colour / 257 - by_8_bits).max() <= 2


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (0, (2.0,), lambda x: x**2),
        (1, (2.0, 2.0, -1.0), lambda x: np.maximum(2 * x - 1, 0) ** 2),
        (2, (1.0, 0.5, -0.25, 0.25), lambda x: np.maximum(0.5 * x, 0.25)),
        (3, (2.0, 1.0, 0.0, 0.25, 0.25), lambda x: np.where(x >= 0.25, x**2, x / 4)),
        (4, (1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.125), lambda x: np.where(x >= 0.5, x / 2 + 0.25, x / 4 + 0.125)),
    ],
)
def test_parametric_curves(kind: int, values: tuple[float, ...], expected: Callable[..., np.ndarray]) -> None:
    tag = b"para\0\0\0\0" + struct.pack(f">HH{len(values)}l", kind, 0, *(round(v * 65536) for v in values))
    x = np.arange(65536) / 65535
    assert np.allclose(_curve(tag), expected(x), atol=1e-4)


def test_16_bits_of_a_profile_that_is_not_for_them_are_converted_at_8_bits_and_say_so() -> None:
    picture = read(with_profile(noise(1), icc_profile("linear", 1.0)))  # gray pixels, a profile of colours
    assert picture.colour.shape == (*SHAPE, 1)
    assert picture.colour.dtype == np.uint8
    assert picture.notes == ("colour-space", "depth")


def zero_alpha_bmp() -> bytes:
    pixels = np.full((4, 4, 4), (30, 60, 200, 0), np.uint8)
    masks = struct.pack("<LLLL", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<LllHHLLllLL", 108, 4, -4, 1, 32, 3, 64, 0, 0, 0, 0) + masks
    return b"BM" + struct.pack("<LHHL", 122 + 64, 0, 0, 122) + head.ljust(108, b"\0") + pixels.tobytes()


def test_bmp_when_its_alpha_is_zero_throughout_has_none() -> None:
    assert read(zero_alpha_bmp()).alpha is None
    assert read(zero_alpha_bmp()).colour[0, 0].tolist() == [200, 60, 30]
    assert decode_photo(zero_alpha_bmp(), max_pixels=LIMIT)[0, 0].tolist() == [200, 60, 30]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused_by_name(kind: str) -> None:
    first = Image.fromarray(gradient())
    data = encode(first, kind, save_all=True, append_images=[first.rotate(180)])
    with pytest.raises(DecodeError, match="an animation or has several pages"):
        read(data)


def test_tiff_whose_second_page_is_half_as_large_is_one_picture_with_a_thumbnail() -> None:
    first = Image.fromarray(gradient())
    data = encode(first, "TIFF", save_all=True, append_images=[first.resize((16, 12))])
    assert np.array_equal(read(data).colour, gradient())


def test_damaged_files_give_pixels_or_a_decode_error() -> None:
    files = one_of_every_format()
    for name, data in mutations(files, 300, seed=3):
        try:
            picture = read(data)
        except DecodeError:
            continue
        except Exception as error:
            raise AssertionError(name) from error
        assert picture.colour.ndim == 3
        assert picture.alpha is None or picture.alpha.shape == picture.colour.shape[:2]

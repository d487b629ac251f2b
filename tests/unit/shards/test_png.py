"""A crop that is decoded alone has the pixels of the whole image's crop, whoever wrote the PNG."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from harness import photo
from PIL import Image

from shards.degradation.crops import NUM_DIHEDRALS, Crop
from shards.errors import DamageError, InputError
from shards.format.png import _filtered_rows, decode_crop, decode_png, encode_png, picture_chunks

IMAGE = photo(3, 70, 52)
NOISE = np.random.RandomState(0).randint(0, 256, (33, 65, 3)).astype(np.uint8)
CROPS = [
    Crop(top_px, left_px, 16, number % NUM_DIHEDRALS)
    for number, (top_px, left_px) in enumerate([(0, 0), (54, 36), (0, 36), (54, 0), (7, 11), (1, 1), (20, 3), (33, 9)])
]


def by_pillow(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("crop", CROPS)
def test_crop_when_decoded_alone_is_that_of_the_whole(crop: Crop) -> None:
    ours = encode_png(IMAGE)
    assert _filtered_rows(ours, crop) is not None
    for payload in (ours, by_pillow(IMAGE), by_pillow(IMAGE, compress_level=0)):
        assert np.array_equal(decode_crop(payload, "s", crop), crop.apply(IMAGE))


def test_png_when_ours_is_read_by_pillow_to_the_same_pixels() -> None:
    for image in (IMAGE, NOISE, np.zeros((1, 1, 3), np.uint8), np.full((5, 2, 3), 255, np.uint8)):
        assert np.array_equal(decode_png(encode_png(image), "s"), image)
        side = min(image.shape[:2])
        assert np.array_equal(decode_crop(encode_png(image), "s", Crop(0, 0, side, 0)), image[:side, :side])


def test_crop_when_outside_is_refused() -> None:
    for payload in (encode_png(IMAGE), by_pillow(IMAGE)):
        for crop in (Crop(55, 0, 16, 0), Crop(0, 37, 16, 0), Crop(-1, 0, 16, 0)):
            with pytest.raises(InputError, match="does not lie in an image of 70x52"):
                decode_crop(payload, "s", crop)


def with_data(content: bytes) -> bytes:
    """Our file with another data chunk, all of its sums right."""
    whole = encode_png(IMAGE)
    body = b"IDAT" + content
    return whole[:33] + struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)) + whole[-12:]


def test_crop_when_the_image_is_broken_is_damage_and_names_the_sample() -> None:
    whole = encode_png(IMAGE)
    rows = zlib.decompress(whole[41:-16])
    broken = [whole[:60], whole[:40], b"", b"no image", with_data(b"no zlib"), with_data(zlib.compress(rows[:900]))]
    for payload in broken:
        with pytest.raises(DamageError, match=r"key\.png: the image cannot be decoded"):
            decode_crop(payload, "key.png", CROPS[1])


def test_rows_when_filtered_otherwise_are_left_to_the_library() -> None:
    rows = bytearray(zlib.decompress(encode_png(IMAGE)[41:-16]))
    rows[10 * (1 + 3 * 52)] = 4
    payload = with_data(zlib.compress(bytes(rows)))
    crop = Crop(0, 0, 16, 0)
    assert _filtered_rows(payload, crop) is None
    assert np.array_equal(decode_crop(payload, "s", crop), crop.apply(decode_png(payload, "s")))


def test_png_when_gray_is_refused() -> None:
    with pytest.raises(DamageError, match="mode L, expected RGB"):
        decode_crop(by_pillow(IMAGE[:, :, 0]), "s", CROPS[0])


@pytest.mark.parametrize(("num_channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("size_px", [(1, 1), (700, 900)])
def test_picture_is_a_png_of_the_same_pixels(num_channels: int, mode: str, size_px: tuple[int, int]) -> None:
    picture = np.random.RandomState(1).randint(0, 256, (*size_px, num_channels), np.uint8)
    data = b"".join(picture_chunks([picture], len(picture), {"Software": "test"}))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        assert image.info["Software"] == "test"
        assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)


def test_picture_of_16_bits_is_a_png_of_16_bits() -> None:
    picture = np.random.RandomState(1).randint(0, 65536, (30, 20, 1), np.uint16)
    with Image.open(io.BytesIO(b"".join(picture_chunks([picture], len(picture), {})))) as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), picture[..., 0])
    colour = np.random.RandomState(2).randint(0, 65536, (30, 20, 3), np.uint16)
    with Image.open(io.BytesIO(b"".join(picture_chunks([colour], len(colour), {})))) as image:
        assert np.array_equal(np.asarray(image), (colour >> 8).astype(np.uint8))  # Pillow keeps the high byte

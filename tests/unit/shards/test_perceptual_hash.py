"""The perceptual hash: fixed bits, near for copies of a photo, far for other photos."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from harness import photo
from PIL import Image, ImageFilter

from shards.write.perceptual_hash import HashIndex, perceptual_hash

NEAR_BITS = 40  # as docs/data.md suggests


def picture(seed: int) -> Image.Image:
    return Image.fromarray(photo(seed, 240, 320))


def hash_of(image: Image.Image) -> str:
    return perceptual_hash(image.convert("L"))


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def test_hash_is_the_same_on_every_machine() -> None:
    # A pattern of whole numbers alone, so that nothing but the hash decides these bits.
    rows, columns = np.indices((200, 300))
    gray = ((rows * columns // 50 + (rows // 40) * 31 + (columns // 60) ** 2 * 9) % 256).astype(np.uint8)
    assert perceptual_hash(Image.fromarray(gray)) == "01ef3f10706f6390466b4cdc5b20d2d656bcb571aae7adc8a899a792a525a96b"


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((160, 120), Image.Resampling.BICUBIC),
        lambda image: image.resize((480, 360), Image.Resampling.LANCZOS),
        lambda image: image.resize((300, 250), Image.Resampling.BICUBIC),
        lambda image: jpeg(image, 20),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: image.point([value * 4 // 5 + 20 for value in range(256)] * 3),
        lambda image: image.crop((2, 2, 319, 239)),
    ],
    ids=["half", "enlarged", "squeezed", "jpeg", "blur", "brightness", "crop"],
)
@pytest.mark.parametrize("seed", range(4))
def test_copy_of_a_photo_is_near(seed: int, change: Callable[[Image.Image], Image.Image]) -> None:
    original = picture(seed)
    assert distance(hash_of(original), hash_of(change(original))) <= NEAR_BITS


def test_other_photos_and_mirrored_ones_are_far() -> None:
    hashes = [hash_of(picture(seed)) for seed in range(12)]
    hashes.append(hash_of(picture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    distances = [distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i]]
    assert min(distances) > 64


def test_hash_has_as_many_ones_as_zeros() -> None:
    assert int(hash_of(picture(5)), 16).bit_count() == 128


def test_index_returns_the_distance_to_every_hash() -> None:
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(20)]
    index = HashIndex(30)
    assert len(index.distances(hashes[0])) == 0
    for one in hashes:
        index.add(one)
    opposite = f"{int(hashes[3], 16) ^ (2**256 - 1):064x}"
    for wanted in (hashes[7], opposite):
        assert index.distances(wanted).tolist() == [distance(one, wanted) for one in hashes]
    assert index.distances(opposite)[3] == 256

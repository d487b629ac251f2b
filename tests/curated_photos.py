"""Photos that rules of curation remove, one for each reason, among good ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from harness import photo
from PIL import Image, ImageFilter


def save_jpeg(image: Image.Image, path: Path, quality: int) -> None:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    Image.open(stream).save(path)  # as PNG: blocks without their format


def write_spoiled_photos(folder: Path) -> Path:
    """One photo for every reason, three good ones, and one that is half flat."""
    folder.mkdir(parents=True)
    images = [Image.fromarray(photo(seed, 160, 192)) for seed in range(8)]
    for number in range(3):
        images[number].save(folder / f"good{number}.png")
    save_jpeg(images[3], folder / "blocky.png", 8)
    images[4].filter(ImageFilter.GaussianBlur(2)).save(folder / "blurred.png")
    Image.new("RGB", (160, 160), (90, 120, 200)).save(folder / "flat.png")
    half = np.array(images[5])
    half[:, 96:] = 77
    Image.fromarray(half).save(folder / "half.png")
    images[0].resize((96, 80), Image.Resampling.BICUBIC).save(folder / "a_small_copy.png")
    # Steps of one level in each direction: not flat, but hardly more.
    rows, columns = np.indices((160, 160))
    Image.fromarray((100 + (rows + columns) % 2 * 1).astype(np.uint8)).convert("RGB").save(folder / "weak.png")
    return folder

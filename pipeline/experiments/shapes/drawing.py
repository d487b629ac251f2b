"""Draws photos of shapes, each kind with a fine texture of its own.

The texture's period is half of what survives downscaling by 4, so an LQ image shows shapes and no texture: what texture
a place should have follows from what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from pipeline.metrics.texture import WAVES_CYCLES_PX
from shards.format.files import write_atomically
from shards.format.png import encode_png

KINDS = ("disc", "square", "triangle", "cross")
SIDE_PX = 192
# Small enough that a generator of a few layers learns which shape a place is in. With cells of 64 px it did not, even
# where all stripes had one phase and pixels alone would have taught it.
_CELL_PX = 32
_CHANCE = 0.9
_AMPLITUDE = 0.18
_EDGE_PX = 1.0


@dataclass(frozen=True)
class Drawing:
    """A photo and what it shows.

    Attributes:
        photo: The picture.
        kinds: At each pixel the number of a kind, from 1; 0 for the background.
    """

    photo: UInt8[ndarray, "192 192 3"]
    kinds: Int[ndarray, "192 192"]


def draw(seed: int) -> Drawing:
    """Draw a photo: up to 36 shapes of random kind, size, place and shade on a smooth background."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX].astype(float)
    picture, kinds = _background(random, rows, columns), np.zeros((SIDE_PX, SIDE_PX), np.int64)
    for top in range(0, SIDE_PX, _CELL_PX):
        for left in range(0, SIDE_PX, _CELL_PX):
            if random.random() > _CHANCE:
                continue
            kind, radius = int(random.integers(len(KINDS))), random.uniform(11, 14)
            middle = _CELL_PX / 2 + random.uniform(-1.5, 1.5, size=2)
            # No shape reaches further.
            near = tuple(slice(max(0, edge - _CELL_PX // 4), edge + _CELL_PX * 5 // 4) for edge in (top, left))
            distance = _DISTANCES[kind](rows[near] - top - middle[0], columns[near] - left - middle[1], radius)
            inside = np.clip(0.5 - distance / _EDGE_PX, 0, 1)[..., None]
            shade = random.uniform(0.3, 0.7, size=3) + _texture(random, kind, rows[near], columns[near])[..., None]
            picture[near] = inside * shade + (1 - inside) * picture[near]
            kinds[near][distance < 0] = kind + 1
    return Drawing((np.clip(picture, 0, 1) * 255).round().astype(np.uint8), kinds)


def _background(
    random: np.random.Generator, rows: Float[ndarray, "h w"], columns: Float[ndarray, "h w"]
) -> Float[ndarray, "h w 3"]:
    slopes, level = random.uniform(-0.15, 0.15, size=(2, 3)), random.uniform(0.3, 0.7, size=3)
    return level + slopes[0] * (rows / SIDE_PX - 0.5)[..., None] + slopes[1] * (columns / SIDE_PX - 0.5)[..., None]


def _texture(
    random: np.random.Generator, kind: int, rows: Float[ndarray, "h w"], columns: Float[ndarray, "h w"]
) -> Float[ndarray, "h w"]:
    down, right = WAVES_CYCLES_PX[kind]
    return _AMPLITUDE * np.sin(2 * np.pi * (rows * down + columns * right) + random.uniform(0, 2 * np.pi))


# Signed distances to the outlines, negative inside; areas are about equal for one radius.
def _disc(y: ndarray, x: ndarray, radius: float) -> ndarray:
    return np.hypot(x, y) - radius


def _square(y: ndarray, x: ndarray, radius: float) -> ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.89 * radius


def _triangle(y: ndarray, x: ndarray, radius: float) -> ndarray:
    return np.maximum(y - 0.75 * radius, 0.89 * np.abs(x) - 0.45 * (y + 1.25 * radius))


def _cross(y: ndarray, x: ndarray, radius: float) -> ndarray:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(across - 0.4 * radius, along - 1.15 * radius)


_DISTANCES = (_disc, _square, _triangle, _cross)


def write_drawings(folder: Path, seeds: range, advance: Callable[[int], None]) -> None:
    """Write the photos of some seeds that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed:07d}.png"
        if not path.is_file():
            write_atomically(path, encode_png(draw(seed).photo))
        advance(1)

"""Where the discriminator of a run looks: the cross-attention of its first fusion block, for some cells of HR crops.

Where nobody chose the cells, a rule does: of the middle crops of all photos, the two cells of one crop whose semantics
are least alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from pipeline.inference.upscale import to_tensor
from pipeline.inference.window import Window
from pipeline.models.discriminators import Discriminator
from pipeline.models.discriminators.attention_maps import first_attention_maps
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import SemanticExtractor

STRONGEST = 0.1
NO_CROSS_ATTENTION = "its fusion blocks have no cross-attention (discriminator.fusion)"
_EVEN = 1.5
_COLOUR = np.array([255.0, 120.0, 20.0])
_BACKGROUND = 0.7
_NO_RANGE = 1e-12


@dataclass(frozen=True)
class AttendingCrop:
    """A crop of HR, and some cells of its semantics whose attention is shown.

    Attributes:
        photo: Name of the photo.
        window: Of the crop.
        pixels: Of the crop.
        cells: Row and column of each.
    """

    photo: str
    window: Window
    pixels: UInt8[ndarray, "side side 3"]
    cells: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class CellAttention:
    """One cell of the semantics of a crop, and its weights over the image features, whose sum is 1."""

    crop: UInt8[ndarray, "side side 3"]
    row: int
    column: int
    weights: Float[ndarray, "h w"]

    @property
    def side(self) -> float:
        """Of the cell, in percent of the crop."""
        return 100 * SEMANTIC_STRIDE_PX / len(self.crop)

    @property
    def left(self) -> float:
        """Likewise."""
        return self.column * self.side

    @property
    def top(self) -> float:
        """Likewise."""
        return self.row * self.side

    @property
    def ends(self) -> tuple[str, str]:
        """The smallest and the largest weight: `-62%` and `+240%` from the mean weight."""
        mean = self.weights.mean()
        return _percent(float(self.weights.min() / mean - 1)), _percent(float(self.weights.max() / mean - 1))

    @property
    def share(self) -> float:
        """Of all weight, what the strongest tenth of the positions holds."""
        num_strongest = max(1, round(STRONGEST * self.weights.size))
        return float(np.sort(self.weights, axis=None)[-num_strongest:].sum())

    @property
    def is_almost_even(self) -> bool:
        """Whether it prefers no positions, so that colours would show differences of no weight."""
        return self.share < _EVEN * STRONGEST

    def overlay(self) -> UInt8[ndarray, "side side 3"]:
        """Return the crop in gray, coloured by the weights: not at all at the smallest, fully at the largest."""
        rows, columns = (np.arange(len(self.crop)) * side // len(self.crop) for side in self.weights.shape)
        spread = max(float(np.ptp(self.weights)), _NO_RANGE)
        strength = ((self.weights - self.weights.min()) / spread)[np.ix_(rows, columns)][..., None]
        gray = self.crop.mean(axis=2, keepdims=True) * _BACKGROUND
        return np.rint(gray * (1 - strength) + _COLOUR * strength).astype(np.uint8)


def _percent(fraction: float) -> str:
    value = 100 * fraction
    return f"{value:+.0f}%" if abs(value) >= 1 else f"{value:+.1g}%"


def smallest_crop_px(discriminator: Discriminator) -> int:
    """Return the side below which a crop has no two cells, or the discriminator does not take it."""
    return max(2 * SEMANTIC_STRIDE_PX, discriminator.smallest_side_px)


def find_cells(
    extractor: SemanticExtractor, photos: Mapping[str, UInt8[ndarray, "h w 3"]], crop_px: int, smallest_px: int
) -> AttendingCrop | None:
    """Return the middle crop whose two least alike cells differ most; None where every photo is too small.

    Args:
        extractor: Of the semantics.
        photos: HR by name.
        crop_px: Side of the crops; a photo that is smaller gives a smaller one.
        smallest_px: Side below which a photo gives none.
    """
    best, largest = None, -1.0
    for photo, image in photos.items():
        side_px = min(crop_px, *image.shape[:2]) // SEMANTIC_STRIDE_PX * SEMANTIC_STRIDE_PX
        if side_px < smallest_px:
            continue
        window = Window((image.shape[0] - side_px) // 2, (image.shape[1] - side_px) // 2, side_px)
        crop = window.cut(image)
        semantics = extractor(to_tensor(crop, extractor.mean.device)).float().cpu()
        cells, difference = least_alike(semantics[0])
        if difference > largest:
            width = semantics.shape[3]
            best, largest = AttendingCrop(photo, window, crop, [divmod(cell, width) for cell in cells]), difference
    return best


def least_alike(semantics: Float[Tensor, "c grid_h grid_w"]) -> tuple[tuple[int, int], float]:
    """Return the two cells, counted row by row, with the largest cosine distance, and that distance."""
    cells = torch.nn.functional.normalize(semantics.flatten(1).T, dim=1)
    distance = 1 - cells @ cells.T
    one, other = divmod(int(distance.argmax()), len(cells))
    return (min(one, other), max(one, other)), float(distance.max())


def attention_of(
    discriminator: Discriminator, extractor: SemanticExtractor, crop: AttendingCrop
) -> list[CellAttention] | None:
    """Return the attention of each cell of a crop; None where no block of the discriminator has cross-attention."""
    image = to_tensor(crop.pixels, extractor.mean.device)
    maps = first_attention_maps(discriminator, image, extractor(image).float())
    if maps is None:
        return None
    weights = maps[0].cpu().numpy()
    return [CellAttention(crop.pixels, row, column, weights[row, column]) for row, column in crop.cells]

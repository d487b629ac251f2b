"""Where the discriminator of a run looks: the cross-attention of its first fusion block, for two cells of one crop.

Crop and cells are chosen by a rule: of the middle crops of all photos, the one with the two cells whose semantics are
least alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.inference.html_report.details import Window
from pipeline.inference.html_report.embedding import png_uri
from pipeline.inference.semantics import build_extractor
from pipeline.inference.upscale import to_tensor
from pipeline.models.discriminators import Discriminator, build_discriminator, load_discriminator_weights
from pipeline.models.discriminators.attention_maps import first_attention_maps
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.weights.files import read_weights

STRONGEST = 0.1
_EVEN = 1.5
_COLOUR = np.array([255.0, 120.0, 20.0])
_BACKGROUND = 0.7
_NO_RANGE = 1e-12


@dataclass(frozen=True)
class Query:
    """One cell of the semantics, and its weights over the image features.

    Attributes:
        left: Of the cell, in percent of the crop.
        top: Likewise.
        side: Likewise.
        overlay: The crop in gray, coloured by the weights: not at all at the smallest, fully at the largest.
        smallest: Weight, in percent above the mean weight.
        largest: Likewise.
        share: Of all weight, what the strongest tenth of the positions holds.
    """

    left: float
    top: float
    side: float
    overlay: str
    smallest: float
    largest: float
    share: float

    @property
    def ends(self) -> tuple[str, str]:
        """The weights at which the colours begin and end: `-62%` and `+240%` from the mean weight."""
        return _percent(self.smallest), _percent(self.largest)


def _percent(value: float) -> str:
    return f"{value:+.0f}%" if abs(value) >= 1 else f"{value:+.1g}%"


@dataclass(frozen=True)
class Attention:
    """The attention of one run's discriminator on one crop of HR.

    Attributes:
        photo: Name of the photo.
        crop_px: Side of the crop.
        crop: As a data URI.
        queries: Two cells, and where each looks.
        positions: Grid of the image features.
        extractor: Of the semantics.
    """

    photo: str
    crop_px: int
    crop: str
    queries: Sequence[Query]
    positions: str
    extractor: str

    @property
    def is_almost_even(self) -> bool:
        """Whether no query prefers some positions, so that the colours would show differences of no weight."""
        return all(query.share < _EVEN * STRONGEST for query in self.queries)


@dataclass(frozen=True)
class _Choice:
    photo: str
    crop: UInt8[ndarray, "h w 3"]
    semantics: Float[Tensor, "1 c grid_h grid_w"]
    cells: tuple[int, int]
    difference: float


def draw_attention(run: RunFolder, photos: Mapping[str, UInt8[ndarray, "h w 3"]]) -> Attention | str:
    """Draw the attention of a run's discriminator.

    Args:
        run: The run.
        photos: HR photos by name.

    Returns:
        The attention, or why there is none to show.

    Raises:
        InputError: The configuration, or the weights of the extractor or of the discriminator cannot be loaded.
    """
    config = run.read_config().train
    if not config.is_adversarial:
        return "the run trains no discriminator"
    if not config.discriminator.semantic:
        return "its discriminator is not semantic-aware (discriminator.semantic is false), so it has no attention"
    if not run.discriminator().is_file():
        return f"no {run.discriminator().relative_to(run.path)}, which a run writes at its end"
    extractor = build_extractor(config.semantics, config.data.crop_px)
    discriminator = _load_discriminator(config, run, extractor.channels)
    smallest_px = max(2 * SEMANTIC_STRIDE_PX, discriminator.smallest_side_px)
    choice = _choose(extractor, photos, config.data.crop_px, smallest_px)
    if choice is None:
        return f"no photo that the report shows has {smallest_px} px per side"
    maps = first_attention_maps(discriminator, to_tensor(choice.crop, torch.device("cpu")), choice.semantics)
    if maps is None:
        return "its fusion blocks have no cross-attention (discriminator.fusion)"
    return _drawn(choice, maps[0].numpy(), extractor.description)


def _load_discriminator(config: TrainConfig, run: RunFolder, semantic_channels: int) -> Discriminator:
    network = build_discriminator(config.discriminator, semantic_channels, config.data.crop_px)
    load_discriminator_weights(network, read_weights(run.discriminator()))
    return network.eval()


def _choose(
    extractor: SemanticExtractor, photos: Mapping[str, UInt8[ndarray, "h w 3"]], crop_px: int, smallest_px: int
) -> _Choice | None:
    choices = []
    for photo, image in photos.items():
        side_px = min(crop_px, *image.shape[:2]) // SEMANTIC_STRIDE_PX * SEMANTIC_STRIDE_PX
        if side_px >= smallest_px:
            crop = Window((image.shape[0] - side_px) // 2, (image.shape[1] - side_px) // 2, side_px).cut(image)
            semantics = extractor(to_tensor(crop, torch.device("cpu"))).float()
            choices.append(_Choice(photo, crop, semantics, *least_alike(semantics[0])))
    return max(choices, key=lambda choice: choice.difference, default=None)


def least_alike(semantics: Float[Tensor, "c grid_h grid_w"]) -> tuple[tuple[int, int], float]:
    """Return the two cells, counted row by row, with the largest cosine distance, and that distance."""
    cells = torch.nn.functional.normalize(semantics.flatten(1).T, dim=1)
    distance = 1 - cells @ cells.T
    one, other = divmod(int(distance.argmax()), len(cells))
    return (min(one, other), max(one, other)), float(distance.max())


def _drawn(choice: _Choice, maps: Float[ndarray, "grid_h grid_w h w"], extractor: str) -> Attention:
    height, width = maps.shape[2:]
    return Attention(
        photo=choice.photo,
        crop_px=len(choice.crop),
        crop=png_uri(choice.crop),
        queries=[_query(choice.crop, maps, cell) for cell in choice.cells],
        positions=f"{height} x {width}",
        extractor=extractor,
    )


def _query(crop: UInt8[ndarray, "h w 3"], maps: Float[ndarray, "grid_h grid_w h w"], cell: int) -> Query:
    row, column = divmod(cell, maps.shape[1])
    weights = maps[row, column]
    num_strongest = max(1, round(STRONGEST * weights.size))
    side = 100 * SEMANTIC_STRIDE_PX / len(crop)
    return Query(
        left=column * side,
        top=row * side,
        side=side,
        overlay=png_uri(_overlay(crop, weights)),
        smallest=100 * float(weights.min() / weights.mean() - 1),
        largest=100 * float(weights.max() / weights.mean() - 1),
        share=float(np.sort(weights, axis=None)[-num_strongest:].sum()),
    )


def _overlay(crop: UInt8[ndarray, "h w 3"], weights: Float[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    rows, columns = (np.arange(len(crop)) * side // len(crop) for side in weights.shape)
    spread = max(float(np.ptp(weights)), _NO_RANGE)
    strength = ((weights - weights.min()) / spread)[np.ix_(rows, columns)][..., None]
    gray = crop.mean(axis=2, keepdims=True) * _BACKGROUND
    return np.rint(gray * (1 - strength) + _COLOUR * strength).astype(np.uint8)

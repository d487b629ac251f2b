"""The attention of a run's discriminator, as the page shows it; `pipeline.inference.attention` computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.inference.attention import (
    NO_CROSS_ATTENTION,
    CellAttention,
    attention_of,
    find_cells,
    smallest_crop_px,
)
from pipeline.inference.exports import load_exported, why_no_discriminator
from pipeline.inference.html_report.embedding import png_uri
from pipeline.inference.semantics import build_extractor


@dataclass(frozen=True)
class Query:
    """One cell of the semantics: its attention, and the picture of that as a data URI."""

    attention: CellAttention
    overlay: str


@dataclass(frozen=True)
class Attention:
    """The attention of one run's discriminator on one crop of HR.

    Attributes:
        photo: Name of the photo.
        crop_px: Side of the crop.
        crop: As a data URI.
        queries: Two cells, and where each looks.
        extractor: Of the semantics.
    """

    photo: str
    crop_px: int
    crop: str
    queries: Sequence[Query]
    extractor: str

    @property
    def positions(self) -> str:
        """Grid of the image features."""
        height, width = self.queries[0].attention.weights.shape
        return f"{height} x {width}"

    @property
    def is_almost_even(self) -> bool:
        """Whether no query prefers some positions, so that the colours would show differences of no weight."""
        return all(query.attention.is_almost_even for query in self.queries)


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
    if config.is_adversarial and not config.discriminator.semantic:
        return "its discriminator is not semantic-aware (discriminator.semantic is false), so it has no attention"
    if reason := why_no_discriminator(run, config):
        return reason
    extractor = build_extractor(config.semantics, config.data.crop_px)
    discriminator = load_exported(run, config, extractor.channels)
    smallest_px = smallest_crop_px(discriminator)
    crop = find_cells(extractor, photos, config.data.crop_px, smallest_px)
    if crop is None:
        return f"no photo that the report shows has {smallest_px} px per side"
    cells = attention_of(discriminator, extractor, crop)
    if cells is None:
        return NO_CROSS_ATTENTION
    queries = [Query(cell, png_uri(cell.overlay())) for cell in cells]
    return Attention(crop.photo, len(crop.pixels), png_uri(crop.pixels), queries, extractor.description)

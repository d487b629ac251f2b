"""The cells whose attention is shown: points that a user names, or those that a rule finds."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.inference.attention import AttendingCrop, CellAttention, attention_of, find_cells, smallest_crop_px
from pipeline.inference.visualise.photos import Photo, is_called
from pipeline.inference.visualise.points import Point
from pipeline.inference.window import Window
from pipeline.models.discriminators import Discriminator
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import SemanticExtractor
from shards.errors import InputError


def crops_of_points(photos: Sequence[Photo], points: Sequence[Point], name: str, crop_px: int) -> list[AttendingCrop]:
    """Return for each point the crop of HR in whose middle it is, moved inwards at a border, and its cell.

    Args:
        photos: That can be shown.
        points: Of one photo.
        name: Of that photo, with or without its set; empty: the first.
        crop_px: Side of a crop.

    Raises:
        InputError: The photo cannot be used, or a point is outside.
    """
    found = [photo for photo in photos if not name or is_called(photo.name, name)]
    if not found:
        raise InputError(
            f"--query-photo {name} cannot be used; name one of {', '.join(photo.name for photo in photos)}"
        )
    return [_crop_of(found[0], point, crop_px) for point in points]


def _crop_of(photo: Photo, point: Point, crop_px: int) -> AttendingCrop:
    height_px, width_px = photo.hr.shape[:2]
    row, column = point.pixel_of(height_px, width_px)
    top, left = (
        min(max(0, at - crop_px // 2), whole_px - crop_px) for at, whole_px in ((row, height_px), (column, width_px))
    )
    window = Window(top, left, crop_px)
    cell = ((row - top) // SEMANTIC_STRIDE_PX, (column - left) // SEMANTIC_STRIDE_PX)
    return AttendingCrop(photo.name, window, window.cut(photo.hr), [cell])


def attend(
    discriminator: Discriminator,
    extractor: SemanticExtractor,
    photos: Sequence[Photo],
    chosen: Sequence[AttendingCrop],
    crop_px: int,
) -> list[tuple[AttendingCrop, CellAttention]]:
    """Return the attention of the chosen cells, of those that the rule finds where none are chosen.

    Returns:
        Each cell with its crop; empty where no block has cross-attention, or a crop is too small for two cells.
    """
    crops = chosen
    if not crops:
        smallest_px = smallest_crop_px(discriminator)
        found = find_cells(extractor, {photo.name: photo.hr for photo in photos}, crop_px, smallest_px)
        crops = [] if found is None else [found]
    return [(crop, cell) for crop in crops for cell in attention_of(discriminator, extractor, crop) or ()]

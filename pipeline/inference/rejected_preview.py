"""A picture of what the rules of curation remove from a dataset: a row for each rule, with the score of every panel.

Photos and sub-images are read from their source, since shards do not hold them. Sub-images go from the nearest to the
bound to the furthest, so that a bound that is too strict shows at the left. A photo that is blurred or blocky is shown
with its middle pixel for pixel, since a thumbnail hides both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from pipeline.inference.captioned_panels import PANEL_PX, captioned_panel, join_pictures
from shards.errors import InputError
from shards.format.curation import SCORE_REASONS, dropped_sub_images, unpack_scores
from shards.format.photos import DecodeError, decode_photo, read_file
from shards.format.png import Pixels
from shards.format.rejects import CURATION_REASONS, Reject, ScoreReason
from shards.format.settings import ImageSettings
from shards.write.curation import near_name
from shards.write.cutting import positions_in
from shards.write.plan import Plan
from shards.write.survey import Photo

_TEXT_PX = 300
"""Width of the longest line about a score."""
T = TypeVar("T")
Panel = tuple[Pixels, list[str]]
"""An image and the lines under it."""


@dataclass(frozen=True)
class _Dropped:
    """A sub-image that breaks a rule."""

    photo: Photo
    number: int
    line: str
    excess: float


def draw_rejected(plans: Sequence[Plan], paths: Mapping[str, Path], num_panels: int) -> Pixels | None:
    """Draw what rules removed, as (H, W, 3) uint8; None where they removed nothing.

    Args:
        plans: Of all generations; at least one.
        paths: Where photos are, by name.
        num_panels: Panels per rule at most.

    Raises:
        InputError: A photo is missing, has changed, or cannot be decoded.
    """
    source = _Source(paths, plans[0].settings)
    rows = [*_photo_rows(plans, source, num_panels), *_sub_image_rows(plans, source, num_panels)]
    if not rows:
        return None
    num_lines = max(len(lines) for row in rows for _, lines in row)
    return join_pictures(
        [join_pictures([captioned_panel(image, lines, num_lines) for image, lines in row], 1) for row in rows], 0
    )


@dataclass(frozen=True)
class _Source:
    """The photos of a dataset."""

    paths: Mapping[str, Path]
    settings: ImageSettings

    def pixels(self, name: str, sha256: str | None = None) -> Pixels:
        """Decode a photo; given a hash, check that its file is the one that was surveyed."""
        if name not in self.paths:
            raise InputError(f"--source lacks {name}; give the folders that the shards were made from, in their order")
        try:
            data = read_file(self.paths[name], max_pixels=self.settings.max_pixels)
            pixels = decode_photo(data, max_pixels=self.settings.max_pixels)
        except DecodeError as error:
            raise InputError(f"{self.paths[name]} cannot be decoded any more ({error.detail}); restore it") from error
        if sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise InputError(f"{self.paths[name]} has changed since the shards were planned; restore it")
        return pixels


def _photo_rows(plans: Sequence[Plan], source: _Source, num_panels: int) -> Iterator[list[Panel]]:
    rejects = [reject for plan in plans for reject in plan.rejects if reject.reason in CURATION_REASONS]
    for reason in sorted({reject.reason for reject in rejects}):
        found = [reject for reject in rejects if reject.reason == reason]
        title = f"{reason}: {len(found)} photo(s)"
        yield [panel for reject in _spread(found, num_panels) for panel in _reject_panels(reject, title, source)]


def _reject_panels(reject: Reject, title: str, source: _Source) -> Iterator[Panel]:
    pixels = source.pixels(reject.path)
    yield _thumbnail(pixels), [title, reject.path, reject.detail]
    if reject.reason in ("blurred", "blocky"):
        yield _middle(pixels), ["its middle, pixel for pixel"]
    if reject.reason == "near-duplicate" and near_name(reject) in source.paths:
        yield _thumbnail(source.pixels(near_name(reject))), ["which is used in its place", near_name(reject)]


def _sub_image_rows(plans: Sequence[Plan], source: _Source, num_panels: int) -> Iterator[list[Panel]]:
    settings = source.settings
    for number, reason in enumerate(SCORE_REASONS):
        found = sorted(_dropped(plans, settings, number), key=lambda dropped: dropped.excess)
        if found:
            yield [_sub_image_panel(dropped, reason, len(found), source) for dropped in _spread(found, num_panels)]


def _dropped(plans: Sequence[Plan], settings: ImageSettings, reason_number: int) -> Iterator[_Dropped]:
    rules = settings.curation
    for photo in (photo for plan in plans for photo in plan.photos):
        broken = dropped_sub_images(photo.scores, rules)
        for number, found in broken.items():
            if found == reason_number:
                row = unpack_scores(photo.scores or "")[1 + number]
                line = rules.sub_image.describe(reason_number, row)
                yield _Dropped(photo, number, line, rules.sub_image.excess(reason_number, row))


def _sub_image_panel(dropped: _Dropped, reason: ScoreReason, count: int, source: _Source) -> Panel:
    photo, side_px = dropped.photo, source.settings.sub_image_px
    top_px, left_px = positions_in(photo.height_px, photo.width_px, source.settings)[dropped.number]
    pixels = source.pixels(photo.name, photo.sha256)[top_px : top_px + side_px, left_px : left_px + side_px]
    place = f"{photo.name}, {top_px} px down, {left_px} px right"
    return np.ascontiguousarray(pixels), [f"{reason}: {count} sub-image(s)", place, dropped.line]


def _thumbnail(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    width_px = max(1, round(image.width * PANEL_PX / image.height))
    return _widened(np.asarray(image.resize((width_px, PANEL_PX), Image.Resampling.LANCZOS)))


def _middle(pixels: Pixels) -> Pixels:
    """Return the middle of a photo, in white where it is smaller than a panel."""
    panel = np.full((PANEL_PX, PANEL_PX, 3), 255, np.uint8)
    top_px, left_px = (max(0, (side_px - PANEL_PX) // 2) for side_px in pixels.shape[:2])
    cut = pixels[top_px : top_px + PANEL_PX, left_px : left_px + PANEL_PX]
    panel[: len(cut), : cut.shape[1]] = cut
    return panel


def _widened(pixels: Pixels) -> Pixels:
    """Add white at the right of a narrow image, so that its lines have room."""
    return np.pad(pixels, ((0, 0), (0, max(0, _TEXT_PX - pixels.shape[1])), (0, 0)), constant_values=255)


def _spread(found: Sequence[T], count: int) -> list[T]:
    """Return some of a sequence, evenly spread from the first to the last."""
    if len(found) <= count:
        return list(found)
    return [found[k * (len(found) - 1) // max(1, count - 1)] for k in range(count)]

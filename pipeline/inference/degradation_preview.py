"""A picture of a degradation: a grid of HR and a few variants, each with the parameters that it was drawn with.

Of paired shards without a recipe, it shows their given LQ images in place of variants.

The seeds are those of the shards, so a variant here has the seed that training uses for it. The canvas is the middle of
the sub-image, neither cropped nor augmented, and LQ is shown enlarged by pixel repetition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.degrade import degrade, stack_parameters
from pipeline.inference.captioned_panels import captioned_panel, join_pictures
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import Recipe
from shards.errors import InputError
from shards.format.png import Pixels, decode_png
from shards.format.settings import ImageSettings
from shards.read.reader import Sample, ShardSet


@dataclass(frozen=True)
class Row:
    """One sub-image: its name, (canvas, canvas, 3) uint8 HR, and the caption and pixels of each LQ."""

    name: str
    hr: Pixels
    lqs: tuple[tuple[list[str], Pixels], ...]


def draw_preview(
    images: ShardSet, recipe: Recipe | None, *, num_samples: int, num_variants: int, canvas_px: int | None
) -> Pixels:
    """Draw a grid of samples, evenly spread over the shards, and their variants.

    Args:
        images: The image shards.
        recipe: The degradation; None to show the LQ images of paired shards.
        num_samples: Rows at most.
        num_variants: Degradations per sample.
        canvas_px: Side of the HR square; None: the whole sub-image.

    Raises:
        InputError: A sub-image is smaller than the canvas.
    """
    indices = [k * len(images) // num_samples for k in range(min(num_samples, len(images)))]
    samples = (images.sample(index) for index in indices)
    return draw_grid([_draw_row(sample, images.manifest.images, recipe, num_variants, canvas_px) for sample in samples])


def _draw_row(
    sample: Sample, dataset: ImageSettings, recipe: Recipe | None, num_variants: int, canvas_px: int | None
) -> Row:
    scale = dataset.scale
    whole = decode_png(sample.part("png"), sample.key, dataset.sub_image_px)
    hr = cut_canvas(whole, sample.key, canvas_px, scale)
    if recipe is None:
        lq = cut_canvas(
            decode_png(sample.part("lq.png"), sample.key, dataset.side_px["lq.png"]), sample.key, len(hr) // scale, 1
        )
        start_px = (len(whole) // scale - len(lq)) // 2 * scale  # where LQ is cut: on the grid of its pixels
        place = slice(start_px, start_px + len(hr))
        return Row(sample.key, whole[place, place], (([f"LQ as given, {len(lq)} px"], lq),))
    parameters = [
        draw_parameters(recipe, seed, scale=scale, canvas_px=len(hr), crop_px=len(hr))
        for seed in _seeds(sample, num_variants, dataset.seed)
    ]
    return Row(sample.key, hr, tuple(_captioned(parameters, _degrade(hr, parameters))))


def _degrade(hr: Pixels, parameters: Sequence[SampleParameters]) -> np.ndarray:
    """Return one LQ for each of some parameters, as (n, side, side, 3) uint8."""
    batch = torch.from_numpy(hr).permute(2, 0, 1)[None].float().div(255).repeat(len(parameters), 1, 1, 1)
    lq = (degrade(batch, stack_parameters(parameters)).lq * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return lq.numpy()


def _captioned(parameters: Sequence[SampleParameters], lqs: np.ndarray) -> Iterator[tuple[list[str], Pixels]]:
    for number, (drawn, lq) in enumerate(zip(parameters, lqs, strict=True)):
        steps = (step.caption() for step in drawn.steps)
        yield [f"variant {number}, LQ, {len(lq)} px", *filter(None, steps)], lq


def _seeds(sample: Sample, num_variants: int, dataset_seed: int) -> list[str]:
    return [sample.record.seed(variant, dataset_seed) for variant in range(num_variants)]


def cut_canvas(image: Pixels, name: str, canvas_px: int | None, scale: int) -> Pixels:
    """Cut the middle square of an image.

    Args:
        image: (H, W, 3) uint8.
        name: Of the sample, for errors.
        canvas_px: Side; the largest multiple of the scale when None.
        scale: Divides the side.

    Raises:
        InputError: The side is not a multiple of the scale, or larger than the image.
    """
    height_px, width_px = image.shape[:2]
    largest_px = min(height_px, width_px) // scale * scale
    side_px = largest_px if canvas_px is None else canvas_px
    if side_px < 1 or side_px % scale or side_px > largest_px:
        raise InputError(
            f"--canvas-px must be a multiple of {scale}, at most {largest_px}; got {side_px}; "
            f"sample {name} has {height_px}x{width_px} px"
        )
    top_px, left_px = (height_px - side_px) // 2, (width_px - side_px) // 2
    return image[top_px : top_px + side_px, left_px : left_px + side_px].copy()


def draw_grid(rows: list[Row]) -> Pixels:
    """Draw one row per sub-image, as (H, W, 3) uint8: HR, then its variants, each with its parameters under it."""
    lines = [_captions(row) for row in rows]
    num_lines = max(len(caption) for captions in lines for caption in captions)
    drawn = [
        join_pictures(
            [captioned_panel(image, caption, num_lines) for image, caption in zip(_images(row), captions, strict=True)],
            1,
        )
        for row, captions in zip(rows, lines, strict=True)
    ]
    return join_pictures(drawn, 0)


def _captions(row: Row) -> list[list[str]]:
    return [[row.name, f"HR, {len(row.hr)} px"], *(caption for caption, _ in row.lqs)]


def _images(row: Row) -> list[Pixels]:
    return [row.hr, *(lq.repeat(len(row.hr) // len(lq), 0).repeat(len(row.hr) // len(lq), 1) for _, lq in row.lqs)]

"""The parameters of one degradation: plain numbers, drawn from a recipe and a seed.

`draw_parameters` is a pure function: the same recipe, seed and sizes give the same numbers on any machine, to the
last bit. `pipeline.degrade` applies them; this module knows no torch.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.degradation.draws import Stream, StreamNumber, seed_words
from shards.degradation.end import draw_end
from shards.degradation.operation import Place, Step
from shards.degradation.operations import OPERATIONS
from shards.degradation.recipe import Recipe, SharpenRecipe
from shards.degradation.rules import require
from shards.errors import InputError


@dataclass(frozen=True)
class SampleParameters:
    """All parameters that turn one square canvas into a low-quality crop.

    Attributes:
        seed_hex: The variant's seed; also the key of its noise.
        recipe: Name of the recipe that they were drawn from.
        scale: Integer ratio of ground-truth to low-quality side.
        canvas_px: Side of the canvas.
        crop_px: Side of the crop of the ground truth, a multiple of the scale.
        crop_top_px: Its first row in the canvas, a multiple of the scale.
        crop_left_px: Its first column.
        sharpen: Unsharp mask, or None.
        steps: In running order.
    """

    seed_hex: str
    recipe: str
    scale: int
    canvas_px: int
    crop_px: int
    crop_top_px: int
    crop_left_px: int
    sharpen: SharpenRecipe | None
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        seed_words(self.seed_hex)
        _check_sizes(self.scale, self.canvas_px, self.crop_px)
        for field in ("crop_top_px", "crop_left_px"):
            value = getattr(self, field)
            holds = 0 <= value <= self.canvas_px - self.crop_px and value % self.scale == 0
            require(holds, field, value, f"a multiple of {self.scale} that keeps the crop in the canvas")
        size_px, lq_px = self.canvas_px, self.canvas_px // self.scale
        for step in self.steps:
            size_px = step.size_after_px(size_px)
        require(size_px == lq_px, "size after the last step", size_px, f"{lq_px} px")


def _check_sizes(scale: int, canvas_px: int, crop_px: int) -> None:
    require(scale >= 1, "scale", scale, "1 or more")
    require(canvas_px >= scale and canvas_px % scale == 0, "canvas_px", canvas_px, f"a multiple of {scale}")
    holds = 0 < crop_px <= canvas_px and crop_px % scale == 0
    require(holds, "crop_px", crop_px, f"a multiple of {scale}, at most the canvas of {canvas_px} px")


def draw_parameters(recipe: Recipe, seed_hex: str, *, scale: int, canvas_px: int, crop_px: int) -> SampleParameters:
    """Draw one degradation.

    Args:
        recipe: The recipe.
        seed_hex: The variant's seed, from `draws.variant_seed`.
        scale: Integer ratio of ground-truth to low-quality side.
        canvas_px: Side of the square canvas that is degraded (400 in Real-ESRGAN), a multiple of the scale.
        crop_px: Side of the crop of the ground truth taken from the degraded canvas, a multiple of the scale.

    Returns:
        The drawn parameters. Each operation draws from a stream of its own, so that changing one shifts no other.

    Raises:
        InputError: Sizes that do not fit, or a malformed seed; names the seed.
    """
    try:
        _check_sizes(scale, canvas_px, crop_px)
    except InputError as error:
        raise InputError(f"degradation of sample {seed_hex}: {error}") from error
    steps = _draw_steps(recipe, seed_hex, canvas_px, canvas_px // scale)
    crop = Stream(seed_hex, StreamNumber.PAIRED_CROP)
    slack = (canvas_px - crop_px) // scale
    top_px, left_px = scale * crop.integer(0, slack), scale * crop.integer(0, slack)
    return SampleParameters(seed_hex, recipe.name, scale, canvas_px, crop_px, top_px, left_px, recipe.sharpen, steps)


def _draw_steps(recipe: Recipe, seed_hex: str, canvas_px: int, lq_px: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    size_px = canvas_px
    for index, stage in enumerate(recipe.stages):
        for name, table in stage.operations:
            operation = OPERATIONS[name]
            step = operation.draw(table, Place(Stream(seed_hex, operation.streams[index]), size_px, lq_px))
            size_px = step.size_after_px(size_px)
            steps.append(step)
    return (*steps, *draw_end(recipe.end, seed_hex, size_px, lq_px))

"""Change of size by a random factor and filter.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.1; the factors follow `RealESRGANModel.feed_data`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from shards.degradation.operation import Operation, Place, Step
from shards.degradation.rules import Range, require, require_finite, require_mixture, require_range

RESIZE_MODES = ("area", "bilinear", "bicubic", "matlab_bicubic")


@dataclass(frozen=True)
class Resize(Step):
    """A change of size; images are square.

    Attributes:
        mode: One of `RESIZE_MODES`.
        size_px: Side afterwards.
        step: Source pixels per pixel afterwards: in / out, or the inverse of the factor it was rounded from.
    """

    application: ClassVar[str] = "resize"

    mode: str
    size_px: int
    step: float

    def __post_init__(self) -> None:
        require(self.mode in RESIZE_MODES, "resize.mode", self.mode, f"one of {RESIZE_MODES}")
        require(self.size_px >= 1, "resize.size_px", self.size_px, "1 or more")
        require_finite("resize.step", self.step, low=1 / 64, high=64)

    def caption(self) -> str:
        """`resize to 40 px, matlab bicubic`."""
        return f"resize to {self.size_px} px, {self.mode.replace('_', ' ')}"

    def size_after_px(self, size_px: int) -> int:
        """The new side, whatever the old one is."""
        return self.size_px


@dataclass(frozen=True)
class ResizeRecipe:
    """Change of size, without antialiasing.

    Attributes:
        base: What the factor multiplies: the size before the step (`current`) or the low-quality size (`output`).
        up_probability: Chances of enlarging, shrinking and keeping; this and the next two sum to 1.
        up_factor: Range when enlarging.
        down_factor: Range when shrinking.
        area_probability: Chances of the three filters; this and the next two sum to 1.
    """

    base: Literal["current", "output"]
    up_probability: float
    down_probability: float
    keep_probability: float
    up_factor: Range
    down_factor: Range
    area_probability: float
    bilinear_probability: float
    bicubic_probability: float

    def __post_init__(self) -> None:
        require_mixture(self, ("up", "down", "keep"))
        require_mixture(self, ("area", "bilinear", "bicubic"))
        require_range("up_factor", self.up_factor, least=1.0)
        require_range("down_factor", self.down_factor, least=0.05)
        require(self.down_factor[1] <= 1, "down_factor", list(self.down_factor), "at most 1")
        require(self.up_factor[1] <= 4, "up_factor", list(self.up_factor), "at most 4")


def _draw(recipe: ResizeRecipe, place: Place) -> Resize:
    stream = place.stream
    chances = [recipe.up_probability, recipe.down_probability, recipe.keep_probability]
    factor_range: Range = [recipe.up_factor, recipe.down_factor, (1.0, 1.0)][stream.choice(chances)]
    factor = stream.uniform(*factor_range)
    chances = [recipe.area_probability, recipe.bilinear_probability, recipe.bicubic_probability]
    mode = RESIZE_MODES[stream.choice(chances)]
    if recipe.base == "current":
        # As `F.interpolate(scale_factor=...)`: the grid follows the factor, not the rounded size.
        return Resize(mode, max(1, math.floor(place.size_px * factor)), 1 / factor)
    new_px = max(1, math.floor(place.lq_px * factor))
    return Resize(mode, new_px, place.size_px / new_px)


RESIZE = Operation("resize", ResizeRecipe, streams=(3, 7), draw=_draw)

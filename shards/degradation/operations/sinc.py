"""A circular low-pass filter, whose ringing imitates overshoot and over-sharpening; drawn as a blur kernel.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.degradation.operation import Operation, Place
from shards.degradation.operations.blur import Blur, draw_kernel_size, draw_sinc, require_kernel_sizes
from shards.degradation.rules import Range, require_probability, require_range


@dataclass(frozen=True)
class SincRecipe:
    """A sinc filter.

    Attributes:
        probability: How often it is applied.
        size_px: Kernel sides, odd, each as likely.
        cutoff_pi: Cutoff frequency in units of pi radians per pixel.
    """

    probability: float
    size_px: tuple[int, int]
    cutoff_pi: Range

    def __post_init__(self) -> None:
        require_probability("probability", self.probability)
        require_kernel_sizes(self.size_px)
        require_range("cutoff_pi", self.cutoff_pi, least=1e-3)


def _draw(recipe: SincRecipe, place: Place) -> Blur:
    if not place.stream.chance(recipe.probability):
        return Blur("none")
    return draw_sinc(draw_kernel_size(recipe.size_px, place.stream), recipe.cutoff_pi, place.stream)


SINC = Operation("sinc", SincRecipe, streams=(14, 15), draw=_draw)

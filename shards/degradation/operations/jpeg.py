"""JPEG compression of a random quality.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from shards.degradation.operation import Operation, Place, Step
from shards.degradation.rules import Range, require, require_finite, require_probability, require_range

JPEG_MODES = ("reference", "faithful")


@dataclass(frozen=True)
class Jpeg(Step):
    """JPEG compression.

    Attributes:
        quality: From 1 to 100; None leaves the image unchanged.
        mode: One of `JPEG_MODES`.
    """

    application: ClassVar[str] = "jpeg"

    quality: float | None
    mode: str

    def __post_init__(self) -> None:
        require(self.mode in JPEG_MODES, "jpeg.mode", self.mode, f"one of {JPEG_MODES}")
        if self.quality is not None:
            require_finite("jpeg.quality", self.quality, low=1, high=100)

    def caption(self) -> str:
        """`JPEG 48`."""
        return "" if self.quality is None else f"JPEG {self.quality:.0f}"

    def batch_key(self) -> object:
        """One mode for the whole batch."""
        return self.mode


@dataclass(frozen=True)
class JpegRecipe:
    """JPEG compression.

    Attributes:
        probability: How often.
        quality: 1..100; fractions count in the reference's simulation and are rounded in the faithful one.
        mode: `reference` simulates as Real-ESRGAN does, `faithful` follows libjpeg's integers.
    """

    probability: float
    quality: Range
    mode: Literal["reference", "faithful"]

    def __post_init__(self) -> None:
        require_probability("probability", self.probability)
        require_range("quality", self.quality, least=1.0)
        require(self.quality[1] <= 100, "quality", list(self.quality), "at most 100")


def _draw(recipe: JpegRecipe, place: Place) -> Jpeg:
    if not place.stream.chance(recipe.probability):
        return Jpeg(None, recipe.mode)
    return Jpeg(place.stream.uniform(*recipe.quality), recipe.mode)


JPEG = Operation("jpeg", JpegRecipe, streams=(5, 9), draw=_draw)

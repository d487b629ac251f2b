"""Gaussian or Poisson noise, gray or in colour.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shards.degradation.operation import Operation, Place, Step
from shards.degradation.rules import Range, require, require_finite, require_probability, require_range

NOISE_KINDS = ("none", "gaussian", "poisson")


@dataclass(frozen=True)
class Noise(Step):
    """Noise, and the stream that its field comes from.

    Attributes:
        kind: One of `NOISE_KINDS`.
        strength: Standard deviation in gray levels (Gaussian) or multiplier (Poisson).
        is_gray: All channels share one field.
        stream: Number that separates this field from those of other steps.
    """

    application: ClassVar[str] = "noise"

    kind: str
    strength: float
    is_gray: bool
    stream: int

    def __post_init__(self) -> None:
        require(self.kind in NOISE_KINDS, "noise.kind", self.kind, f"one of {NOISE_KINDS}")
        require_finite("noise.strength", self.strength, low=0, high=255)
        require(0 <= self.stream < 1 << 32, "noise.stream", self.stream, "a stream number below 2**32")

    def caption(self) -> str:
        """`poisson noise 1.50, gray`."""
        if self.kind == "none":
            return ""
        return f"{self.kind} noise {self.strength:.2f}, {'gray' if self.is_gray else 'colour'}"

    def batch_key(self) -> object:
        """One stream for the whole batch: the field is computed for all images at once."""
        return self.stream


@dataclass(frozen=True)
class NoiseRecipe:
    """Gaussian or Poisson noise, gray or in colour.

    Attributes:
        probability: How often there is any.
        gaussian_probability: How often it is Gaussian rather than Poisson.
        gray_probability: How often all channels share one field.
        sigma_255: Standard deviation of the Gaussian, in gray levels.
        poisson_scale: Multiplies the Poisson noise.
    """

    probability: float
    gaussian_probability: float
    gray_probability: float
    sigma_255: Range
    poisson_scale: Range

    def __post_init__(self) -> None:
        for name in ("probability", "gaussian_probability", "gray_probability"):
            require_probability(name, getattr(self, name))
        require_range("sigma_255", self.sigma_255, least=0.0)
        require_range("poisson_scale", self.poisson_scale, least=0.0)


def _draw(recipe: NoiseRecipe, place: Place) -> Noise:
    stream = place.stream
    if not stream.chance(recipe.probability):
        return Noise("none", 0.0, False, stream.number)
    is_gray = stream.chance(recipe.gray_probability)
    if stream.chance(recipe.gaussian_probability):
        return Noise("gaussian", stream.uniform(*recipe.sigma_255), is_gray, stream.number)
    return Noise("poisson", stream.uniform(*recipe.poisson_scale), is_gray, stream.number)


NOISE = Operation("noise", NoiseRecipe, streams=(4, 8), draw=_draw)

"""Blur with a random kernel: six Gaussian-like families, or a sinc.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, sections 3.1 and 3.3; the draws follow
    `random_mixed_kernels` and `RealESRGANDataset.__getitem__` of BasicSR and Real-ESRGAN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from shards.degradation.draws import Stream
from shards.degradation.operation import Operation, Place, Step
from shards.degradation.rules import (
    Range,
    require,
    require_finite,
    require_mixture,
    require_probability,
    require_range,
)

MAX_KERNEL_PX = 21
KERNELS = ("none", "gaussian", "generalized", "plateau", "sinc")
FAMILIES = (
    "isotropic",
    "anisotropic",
    "generalized_isotropic",
    "generalized_anisotropic",
    "plateau_isotropic",
    "plateau_anisotropic",
)


@dataclass(frozen=True)
class Blur(Step):
    """A blur kernel.

    Attributes:
        family: One of `KERNELS`; `none` leaves the image unchanged.
        size_px: Side, odd, up to 21.
        sigma_x_px: Standard deviation along the rows, before the rotation; unused by sinc.
        sigma_y_px: Along the columns.
        theta_rad: Rotation of the two axes.
        beta: Shape of the generalized Gaussian and the plateau.
        cutoff_rad: Cutoff of the sinc, in radians per pixel.
    """

    application: ClassVar[str] = "blur"

    family: str
    size_px: int = MAX_KERNEL_PX
    sigma_x_px: float = 1.0
    sigma_y_px: float = 1.0
    theta_rad: float = 0.0
    beta: float = 1.0
    cutoff_rad: float = math.pi

    def __post_init__(self) -> None:
        require(self.family in KERNELS, "blur.family", self.family, f"one of {KERNELS}")
        holds = self.size_px % 2 == 1 and 1 <= self.size_px <= MAX_KERNEL_PX
        require(holds, "blur.size_px", self.size_px, f"odd, from 1 to {MAX_KERNEL_PX}")
        require_finite("blur.sigma_x_px", self.sigma_x_px, low=1e-3, high=1e3)
        require_finite("blur.sigma_y_px", self.sigma_y_px, low=1e-3, high=1e3)
        require_finite("blur.theta_rad", self.theta_rad, low=-2 * math.pi, high=2 * math.pi)
        require_finite("blur.beta", self.beta, low=1e-3, high=1e3)
        require_finite("blur.cutoff_rad", self.cutoff_rad, low=1e-3, high=2 * math.pi)

    def caption(self) -> str:
        """`plateau 9 px, sigma 1.00 0.50, beta 1.50`."""
        if self.family == "none":
            return ""
        if self.family == "sinc":
            return f"sinc {self.size_px} px, cutoff {self.cutoff_rad:.2f} rad"
        shape = "" if self.family == "gaussian" else f", beta {self.beta:.2f}"
        other = "" if self.sigma_x_px == self.sigma_y_px else f" {self.sigma_y_px:.2f}"
        return f"{self.family} {self.size_px} px, sigma {self.sigma_x_px:.2f}{other}{shape}"


def require_kernel_sizes(size_px: tuple[int, int]) -> None:
    """Require [low, high], both odd."""
    low, high = size_px
    holds = low % 2 == high % 2 == 1 and 1 <= low <= high <= MAX_KERNEL_PX
    require(holds, "size_px", list(size_px), f"[low, high], odd, from 1 to {MAX_KERNEL_PX}")


@dataclass(frozen=True)
class BlurRecipe:
    """One of six blur families, or a sinc.

    Attributes:
        probability: How often it is applied at all.
        sinc_probability: How often it is a sinc rather than one of the six.
        size_px: Kernel sides, odd, each as likely.
        sigma_px: Standard deviation along each axis.
        generalized_beta: Shape of the generalized Gaussian: below and above 1 with probability 0.5 each.
        plateau_beta: Shape of the plateau, likewise.
        sinc_cutoff_pi: Cutoff of kernels of `sinc_small_below_px` or more, in units of pi radians per pixel.
        sinc_cutoff_small_pi: Cutoff of smaller kernels.
        sinc_small_below_px: Where the two meet.
        isotropic_probability: Chances of the families; this and the next five sum to 1.
    """

    probability: float
    sinc_probability: float
    size_px: tuple[int, int]
    sigma_px: Range
    generalized_beta: Range
    plateau_beta: Range
    sinc_cutoff_pi: Range
    sinc_cutoff_small_pi: Range
    sinc_small_below_px: int
    isotropic_probability: float
    anisotropic_probability: float
    generalized_isotropic_probability: float
    generalized_anisotropic_probability: float
    plateau_isotropic_probability: float
    plateau_anisotropic_probability: float

    def __post_init__(self) -> None:
        require_probability("probability", self.probability)
        require_probability("sinc_probability", self.sinc_probability)
        require_kernel_sizes(self.size_px)
        require_range("sigma_px", self.sigma_px, least=1e-3)
        require_mixture(self, FAMILIES)
        for name in ("generalized_beta", "plateau_beta"):
            value = getattr(self, name)
            require(0 < value[0] <= 1 <= value[1], name, list(value), "[low, high] with 0 < low <= 1 <= high")
        require_range("sinc_cutoff_pi", self.sinc_cutoff_pi, least=1e-3)
        require_range("sinc_cutoff_small_pi", self.sinc_cutoff_small_pi, least=1e-3)


def draw_kernel_size(size_px: tuple[int, int], stream: Stream) -> int:
    """An odd side, each as likely."""
    return 2 * stream.integer(size_px[0] // 2, size_px[1] // 2) + 1


def draw_sinc(size_px: int, cutoff_pi: Range, stream: Stream) -> Blur:
    """A sinc kernel of a given side."""
    return Blur("sinc", size_px, cutoff_rad=math.pi * stream.uniform(*cutoff_pi))


def _draw(recipe: BlurRecipe, place: Place) -> Blur:
    stream = place.stream
    if not stream.chance(recipe.probability):
        return Blur("none")
    size_px = draw_kernel_size(recipe.size_px, stream)
    if stream.chance(recipe.sinc_probability):
        is_small = size_px < recipe.sinc_small_below_px
        return draw_sinc(size_px, recipe.sinc_cutoff_small_pi if is_small else recipe.sinc_cutoff_pi, stream)
    name = FAMILIES[stream.choice([getattr(recipe, f"{name}_probability") for name in FAMILIES])]
    sigma_x_px = sigma_y_px = stream.uniform(*recipe.sigma_px)
    theta_rad = 0.0
    if name.endswith("anisotropic"):
        sigma_y_px = stream.uniform(*recipe.sigma_px)
        theta_rad = stream.uniform(-math.pi, math.pi)
    family, beta = "gaussian", 1.0
    if name.startswith("generalized"):
        family, beta = "generalized", _draw_beta(recipe.generalized_beta, stream)
    elif name.startswith("plateau"):
        family, beta = "plateau", _draw_beta(recipe.plateau_beta, stream)
    return Blur(family, size_px, sigma_x_px, sigma_y_px, theta_rad, beta)


def _draw_beta(beta: Range, stream: Stream) -> float:
    """Below or above 1 with probability 0.5 each, then uniform there."""
    return stream.uniform(beta[0], 1.0) if stream.chance(0.5) else stream.uniform(1.0, beta[1])


BLUR = Operation("blur", BlurRecipe, streams=(2, 6), draw=_draw)

"""Blur kernels from their parameters: Gaussian, generalized Gaussian, plateau and sinc, each summing to 1.

Built on the host in float64: they are tiny, and thus the same on every device.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, sections 3.1 and 3.3; `bivariate_*` and
    `circular_lowpass_kernel` of BasicSR (`basicsr/data/degradations.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from shards.degradation.operations.blur import MAX_KERNEL_PX, Blur


def blur_kernels(blurs: Sequence[Blur]) -> Float64[Tensor, "n 21 21"]:
    """Kernels of a batch, rows then columns; smaller kernels are centred and padded with zeros.

    Args:
        blurs: One per image. `none` becomes the unit impulse.
    """
    sides_px = torch.tensor([blur.size_px for blur in blurs])
    axis = torch.arange(MAX_KERNEL_PX, dtype=torch.float64) - MAX_KERNEL_PX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    half_px = (sides_px // 2).view(-1, 1, 1)
    inside = (x.abs() <= half_px) & (y.abs() <= half_px)
    family = [blur.family for blur in blurs]
    distance = _mahalanobis(x, y, blurs)
    beta = _column([blur.beta for blur in blurs])
    values = torch.where(_is(family, "sinc"), _sinc(x, y, blurs), torch.exp(-0.5 * distance))
    values = torch.where(_is(family, "generalized"), torch.exp(-0.5 * distance**beta), values)
    values = torch.where(_is(family, "plateau"), 1 / (distance**beta + 1), values)
    values = torch.where(_is(family, "none"), ((x == 0) & (y == 0)).double(), values)
    values = torch.where(inside, values, 0.0)
    return values / values.sum(dim=(1, 2), keepdim=True)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


def _is(family: Sequence[str], name: str) -> Tensor:
    return torch.tensor([other == name for other in family], dtype=torch.bool).view(-1, 1, 1)


def _mahalanobis(x: Tensor, y: Tensor, blurs: Sequence[Blur]) -> Tensor:
    """Squared distance from the centre, in standard deviations along the rotated axes."""
    cos = _column([math.cos(blur.theta_rad) for blur in blurs])
    sin = _column([math.sin(blur.theta_rad) for blur in blurs])
    along = (cos * x + sin * y) / _column([blur.sigma_x_px for blur in blurs])
    across = (cos * y - sin * x) / _column([blur.sigma_y_px for blur in blurs])
    return along**2 + across**2


def _sinc(x: Tensor, y: Tensor, blurs: Sequence[Blur]) -> Tensor:
    """Impulse response of the ideal circular low-pass (Real-ESRGAN, equation 8)."""
    cutoff = _column([blur.cutoff_rad for blur in blurs])
    radius = torch.sqrt(x**2 + y**2)
    away = torch.where(radius > 0, radius, 1.0)
    ring = cutoff * torch.special.bessel_j1(cutoff * away) / (2 * math.pi * away)
    return torch.where(radius > 0, ring, cutoff**2 / (4 * math.pi))

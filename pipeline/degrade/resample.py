"""Resizing as a product with a matrix per sample, so that each sample has its own size and filter.

`resize_matrices` builds the matrices on the device, without synchronisation; rows beyond a sample's own size are
zero, so that what lies outside a smaller sample is zero after a resize. The filters are those of
`torch.nn.functional.interpolate` without antialiasing (area, bilinear, bicubic with a = -0.75), which Real-ESRGAN
uses, and MATLAB's antialiased bicubic (a = -0.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shards.degradation.parameters import RESIZE_MODES

_AREA, _BILINEAR, _BICUBIC, _MATLAB = range(len(RESIZE_MODES))
_TAPS = {"bilinear": 2, "bicubic": 4}


def num_taps(mode: str, in_px: int, out_px: int, step: float) -> int:
    """How many source pixels a pixel can depend on; known on the host, it sizes the tensors."""
    if mode == "area":
        return math.ceil(in_px / out_px) + 1
    if mode == "matlab_bicubic":
        return math.ceil(4 * max(step, 1.0)) + 1
    return _TAPS[mode]


def resize_matrices(
    mode: Tensor, in_px: Tensor, out_px: Tensor, step: Tensor, *, shape_px: tuple[int, int], taps: int
) -> Tensor:
    """Matrices that map a row of pixels to a row of another length.

    Args:
        mode: (N,) int64, index into `RESIZE_MODES`.
        in_px: (N,) int64, length before.
        out_px: (N,) int64, length after.
        step: (N,) float64, source pixels a pixel afterwards.
        shape_px: The largest length after and before: the matrices' shape.
        taps: The most that `num_taps` says for any sample.

    Returns:
        (N, *shape_px) float64. Each row within `out_px` sums to 1.
    """
    out_max_px, in_max_px = shape_px
    row = torch.arange(out_max_px, device=step.device).view(1, -1, 1)
    tap = torch.arange(taps, device=step.device).view(1, 1, -1)
    mode, in_px, out_px, step = (value.view(-1, 1, 1) for value in (mode, in_px, out_px, step))
    position = (row + 0.5) * step - 0.5
    index, weight = _area(row, tap, in_px, out_px)
    for code, taps_of in ((_BILINEAR, _bilinear), (_BICUBIC, _bicubic), (_MATLAB, _matlab)):
        other_index, other_weight = taps_of(position, tap, in_px, step)
        index = torch.where(mode == code, other_index, index)
        weight = torch.where(mode == code, other_weight, weight)
    weight = torch.where(row < out_px, weight, 0.0)
    # Taps that fall on one pixel carry their common sum, so that writing them in any order gives the same bits.
    same = index.unsqueeze(-1) == index.unsqueeze(-2)
    weight = torch.where(same, weight.unsqueeze(-2), 0.0).sum(dim=-1)
    matrices = torch.zeros(step.shape[0], out_max_px, in_max_px, dtype=torch.float64, device=step.device)
    return matrices.scatter_(2, index, weight)


def _area(row: Tensor, tap: Tensor, in_px: Tensor, out_px: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the pixels that an output pixel touches, as adaptive average pooling has it."""
    start = row * in_px // out_px
    stop = ((row + 1) * in_px + out_px - 1) // out_px
    index = torch.minimum(start + tap, stop - 1)
    weight = (start + tap < stop) / (stop - start).double()
    return torch.minimum(index, in_px - 1), weight


def _bilinear(position: Tensor, tap: Tensor, in_px: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    position = position.clamp(min=0)
    first = position.floor()
    weight = (1 - (position - first - tap).abs()).clamp(min=0)
    return torch.minimum((first + tap).long(), in_px - 1), weight


def _bicubic(position: Tensor, tap: Tensor, in_px: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    nominal = position.floor() - 1 + tap
    index = torch.minimum(nominal.long().clamp(min=0), in_px - 1)
    return index, _cubic(position - nominal, a=-0.75)


def _matlab(position: Tensor, tap: Tensor, in_px: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    width = step.clamp(min=1)
    nominal = (position - 2 * width).ceil() + tap
    weight = _cubic((position - nominal) / width, a=-0.5)
    total = weight.sum(dim=-1, keepdim=True)
    folded = nominal.long() % (2 * in_px)
    return torch.minimum(folded, 2 * in_px - 1 - folded), weight / torch.where(total == 0, 1.0, total)


def _cubic(distance: Tensor, *, a: float) -> Tensor:
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def resize(image: Tensor, matrices: Tensor) -> Tensor:
    """Resize a batch of square canvases.

    Args:
        image: (N, C, S, S).
        matrices: (N, T, S), of `resize_matrices`.

    Returns:
        (N, C, T, T), of the image's type.
    """
    matrices = matrices.to(image.dtype).unsqueeze(1)
    return matrices @ (image @ matrices.transpose(2, 3))

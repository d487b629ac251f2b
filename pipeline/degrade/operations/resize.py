"""Resizing as a product with one matrix per image, so that each image has its own size and filter.

`resize_matrices` builds the matrices on the device, without synchronisation; rows beyond an image's own size are
zero, so that pixels outside a smaller image are zero after a resize. The filters are those of
`torch.nn.functional.interpolate` without antialiasing (area, bilinear, bicubic with a = -0.75), which Real-ESRGAN
uses, and the antialiased bicubic of MATLAB's `imresize` (a = -0.5).

References:
    Keys 1981, Cubic convolution interpolation for digital image processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pipeline.degrade.step_batch import Application, StepBatch
from shards.degradation.operations.resize import RESIZE_MODES, Resize

_AREA, _BILINEAR, _BICUBIC, MATLAB_BICUBIC = range(len(RESIZE_MODES))
_TAPS = {"bilinear": 2, "bicubic": 4}


def num_taps(mode: str, in_px: int, out_px: int, step: float) -> int:
    """Number of source pixels that an output pixel may depend on; known on the host, where it sizes the tensors."""
    if mode == "area":
        return math.ceil(in_px / out_px) + 1
    if mode == "matlab_bicubic":
        return math.ceil(4 * max(step, 1.0)) + 1
    return _TAPS[mode]


def resize_matrices(
    mode: Int[Tensor, " n"],
    in_px: Int[Tensor, " n"],
    out_px: Int[Tensor, " n"],
    step: Float64[Tensor, " n"],
    *,
    shape_px: tuple[int, int],
    taps: int,
) -> Float64[Tensor, "n out_max in_max"]:
    """Matrices that map a row of pixels to a row of another length.

    Args:
        mode: Index into `RESIZE_MODES`.
        in_px: Length before.
        out_px: Length after.
        step: Source pixels per pixel afterwards.
        shape_px: The largest length after and before: the matrices' shape.
        taps: The largest `num_taps` of all images.

    Returns:
        Rows that sum to 1 within `out_px`, and are zero beyond it.
    """
    out_max_px, in_max_px = shape_px
    row = torch.arange(out_max_px, device=step.device).view(1, -1, 1)
    tap = torch.arange(taps, device=step.device).view(1, 1, -1)
    mode, in_px, out_px, step = (value.view(-1, 1, 1) for value in (mode, in_px, out_px, step))
    position = (row + 0.5) * step - 0.5
    index, weight = _area(row, tap, in_px, out_px)
    for code, taps_of in ((_BILINEAR, _bilinear), (_BICUBIC, _bicubic), (MATLAB_BICUBIC, _matlab)):
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
    """Mean of all pixels that an output pixel overlaps, each with the same weight, as adaptive average pooling."""
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
    # `imresize` widens the kernel by the step when shrinking, and mirrors borders with the edge pixel repeated.
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


def resize(image: Float[Tensor, "n c s s"], matrices: Float64[Tensor, "n t s"]) -> Float[Tensor, "n c t t"]:
    """Resize square canvases by the matrices of `resize_matrices`; not clipped."""
    matrices = matrices.to(image.dtype).unsqueeze(1)
    return matrices @ (image @ matrices.transpose(2, 3))


@dataclass(frozen=True)
class ResizeBatch(StepBatch):
    """New sizes and filters, as `resize_matrices` takes them; the largest size and number of taps on the host."""

    mode: Int[Tensor, " n"]
    in_px: Int[Tensor, " n"]
    out_px: Int[Tensor, " n"]
    step: Float64[Tensor, " n"]
    out_max_px: int
    taps: int

    def select(self, samples: list[int]) -> ResizeBatch:
        """The sizes of some images."""
        out_px = self.out_px[samples]
        mode, in_px, step = self.mode[samples], self.in_px[samples], self.step[samples]
        return ResizeBatch(mode, in_px, out_px, step, int(out_px.max()), self.taps)

    def apply(self, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Resize every image."""
        shape_px = (self.out_max_px, image.shape[-1])
        matrices = resize_matrices(self.mode, self.in_px, self.out_px, self.step, shape_px=shape_px, taps=self.taps)
        return resize(image, matrices), self.out_px


def _stack(steps: Sequence[Resize], sizes_px: Sequence[int]) -> ResizeBatch:
    taps = [num_taps(step.mode, size, step.size_px, step.step) for step, size in zip(steps, sizes_px, strict=True)]
    return ResizeBatch(
        torch.tensor([RESIZE_MODES.index(step.mode) for step in steps]),
        torch.tensor(sizes_px),
        torch.tensor([step.size_px for step in steps]),
        torch.tensor([step.step for step in steps], dtype=torch.float64),
        max(step.size_px for step in steps),
        max(taps),
    )


RESIZE = Application("resize", _stack)

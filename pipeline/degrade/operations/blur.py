"""Blur: a kernel per image, by FFT, with borders mirrored at each image's own border.

A 21x21 kernel costs 441 multiplications per pixel directly; the FFT's cost does not depend on the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pipeline.degrade.borders import mirrored_index, take
from pipeline.degrade.kernels import blur_kernels
from pipeline.degrade.step_batch import Application, Rows, StepBatch
from shards.degradation.operations.blur import Blur


def blur(
    image: Float[Tensor, "n c s s"], kernels: Float[Tensor, "n k k"], size_px: Int[Tensor, " n"]
) -> Float[Tensor, "n c s s"]:
    """Filter each image with its own kernel, by FFT.

    Args:
        image: Any range.
        kernels: Of an odd side, point-symmetric, so that convolution and correlation agree.
        size_px: Side of each image; pixels beyond it are not read, and undefined afterwards.

    Returns:
        Not clipped.
    """
    side_px, reach_px = image.shape[-1], kernels.shape[-1] - 1
    fft_px = _fast_length(side_px + reach_px)
    padded = take(image, mirrored_index(size_px, reach_px // 2, fft_px))
    response = torch.fft.rfft2(kernels.to(image.dtype).unsqueeze(1), s=(fft_px, fft_px))
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded) * response, s=(fft_px, fft_px))
    return filtered[:, :, reach_px : reach_px + side_px, reach_px : reach_px + side_px]


def _fast_length(at_least: int) -> int:
    """The next even length whose only prime factors are 2, 3 and 5."""
    length = at_least + at_least % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(length: int) -> bool:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length == 1


@dataclass(frozen=True)
class BlurBatch(StepBatch):
    """Kernels of the images that are blurred."""

    rows: Rows
    kernels: Float64[Tensor, "k 21 21"]

    def select(self, samples: list[int]) -> BlurBatch:
        """The kernels of some images."""
        rows, old_rows = self.rows.select(samples)
        return BlurBatch(rows, self.kernels[old_rows])

    def apply(self, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Blur the images that have a kernel."""
        own_px = size_px[self.rows.index]
        return self.rows.apply(image, lambda part: blur(part, self.kernels, own_px)), size_px


def _stack(steps: Sequence[Blur], _: Sequence[int]) -> BlurBatch:
    rows = Rows.where([step.family != "none" for step in steps])
    return BlurBatch(rows, blur_kernels([steps[row] for row in rows.index.tolist()]))


BLUR = Application("blur", _stack)

"""JPEG compression with a quality per image: the reference's simulation, or libjpeg's integers.

`reference` is the simulation of Real-ESRGAN (DiffJPEG): fractional tables, zeros beyond the border, chroma averaged
and repeated, only the coefficients rounded; 1 to 5 gray levels from a real encoder on average. `faithful` follows
libjpeg with 4:2:0 chroma: integer tables, repeated borders, 8-bit planes, triangular ("fancy") chroma upsampling.

References:
    ITU-T T.81 (tables of annex K); `basicsr/utils/diffjpeg.py`; libjpeg's jcsample.c and jdsample.c;
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pipeline.degrade.borders import repeated_index, take
from pipeline.degrade.step_batch import Application, Rows, StepBatch
from shards.degradation.operations.jpeg import Jpeg

_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_BLOCK_PX = 8
_UNIT_PX = 16
_CENTRE = 128.0


def jpeg(
    image: Float[Tensor, "n 3 s s"], quality: Float[Tensor, " n"], size_px: Int[Tensor, " n"], *, mode: str
) -> Float[Tensor, "n 3 s s"]:
    """Compress and decompress.

    Args:
        image: RGB; clipped to [0, 1] first.
        quality: 1..100.
        size_px: Side of each image; pixels beyond it are not read, and undefined afterwards.
        mode: `reference` or `faithful`.

    Returns:
        In [0, 1].
    """
    return (_faithful if mode == "faithful" else _reference)(image, quality, size_px)


def _reference(image: Tensor, quality: Tensor, size_px: Tensor) -> Tensor:
    side_px = image.shape[-1]
    inside = (torch.arange(side_px, device=image.device) < size_px.view(-1, 1)).to(image.dtype)
    image = image.clamp(0, 1) * (255 * inside.view(-1, 1, 1, side_px) * inside.view(-1, 1, side_px, 1))
    pad_px = -side_px % _UNIT_PX
    planes = _mix(F.pad(image, (0, pad_px, 0, pad_px)), _TO_YCC)
    factor = _percent(quality.to(image.dtype)) / 100
    # The reference's luma table is transposed (its chroma table is symmetric). Chroma is centred on 0 already.
    luma = _quantise(planes[:, :1] - _CENTRE, _table(_LUMA_TABLE, image).T * factor) + _CENTRE
    chroma = _quantise(F.avg_pool2d(planes[:, 1:], 2), _table(_CHROMA_TABLE, image) * factor)
    chroma = chroma.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return _mix(torch.cat([luma, chroma], dim=1), _TO_RGB)[:, :, :side_px, :side_px].clamp(0, 255) / 255


def _faithful(image: Tensor, quality: Tensor, size_px: Tensor) -> Tensor:
    side_px = image.shape[-1]
    padded_px = side_px + -side_px % _UNIT_PX
    pixels = take((image.clamp(0, 1) * 255).round(), repeated_index(size_px, 0, padded_px))
    planes = _mix(pixels, _TO_YCC).round()
    percent = _percent(quality.to(image.dtype).round()).floor()
    tables = [((_table(t, image) * percent + 50) / 100).floor().clamp(1, 255) for t in (_LUMA_TABLE, _CHROMA_TABLE)]
    luma = _quantise(planes[:, :1] - _CENTRE, tables[0]).round().clamp(-128, 127) + _CENTRE
    chroma = _quantise(_halve(planes[:, 1:]), tables[1]).round().clamp(-128, 127)
    rgb = _mix(torch.cat([luma, _double(chroma, (size_px + 1) // 2)], dim=1), _TO_RGB).round()
    return rgb[:, :, :side_px, :side_px].clamp(0, 255) / 255


def _percent(quality: Tensor) -> Tensor:
    """Libjpeg's scale of the tables in percent (jcparam.c, jpeg_quality_scaling), (n, 1, 1)."""
    return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1)


def _table(values: tuple[tuple[int, ...], ...], like: Tensor) -> Tensor:
    return _constant_table(values, like.dtype, like.device)


# Cached per device: copying a constant to a GPU synchronises with it.
@functools.lru_cache(maxsize=16)
def _constant_table(values: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _mix(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Change of colour space; a fixed order of summation gives the same bits on every device."""
    a, b, c = planes.unbind(dim=1)
    return torch.stack([row[0] * a + row[1] * b + row[2] * c for row in matrix], dim=1)


def _quantise(planes: Tensor, tables: Tensor) -> Tensor:
    """Round the DCT coefficients of the 8x8 blocks to multiples of the tables, (n, 8, 8), and transform back."""
    num, channels, side_px, _ = planes.shape
    num_blocks = side_px // _BLOCK_PX
    basis = _cosines(planes.dtype, planes.device)
    blocks = planes.reshape(num, channels * num_blocks, _BLOCK_PX, side_px)
    coefficients = (basis @ blocks).reshape(num, -1, _BLOCK_PX, num_blocks, _BLOCK_PX) @ basis.T
    tables = tables.view(-1, 1, _BLOCK_PX, 1, _BLOCK_PX)
    coefficients = (coefficients / tables).round() * tables
    rows = (coefficients @ basis).reshape(num, channels * num_blocks, _BLOCK_PX, side_px)
    return (basis.T @ rows).reshape(planes.shape)


@functools.lru_cache(maxsize=16)
def _cosines(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II as a matrix: frequency, position."""
    frequency = torch.arange(_BLOCK_PX, dtype=torch.float64).view(-1, 1)
    position = torch.arange(_BLOCK_PX, dtype=torch.float64).view(1, -1)
    basis = torch.cos((2 * position + 1) * frequency * math.pi / (2 * _BLOCK_PX)) * math.sqrt(2 / _BLOCK_PX)
    basis[0] /= math.sqrt(2)
    return basis.to(device, dtype)


def _halve(planes: Tensor) -> Tensor:
    """Mean of 2x2 pixels; halves round down and up in alternate columns (jcsample.c, h2v2_downsample)."""
    total = F.avg_pool2d(planes, 2) * 4
    bias = 1 + torch.arange(total.shape[-1], device=planes.device) % 2
    return ((total + bias) / 4).floor()


def _double(planes: Tensor, size_px: Tensor) -> Tensor:
    """Triangular upsampling by 2: 3/4 of the nearest sample, 1/4 of the next (jdsample.c, h2v2_fancy_upsample)."""
    length_px = planes.shape[-1] + 2
    padded = take(planes, repeated_index(size_px, 1, length_px))
    total = _blend(_blend(padded, 2), 3)
    # Even columns round half up, odd ones half down.
    bias = 8 - torch.arange(total.shape[-1], device=planes.device) % 2
    return ((total + bias) / 16).floor()


def _blend(padded: Tensor, dim: int) -> Tensor:
    length = padded.shape[dim] - 2
    before, here, after = (padded.narrow(dim, k, length) for k in range(3))
    return torch.stack([3 * here + before, 3 * here + after], dim=dim + 1).flatten(dim, dim + 1)


@dataclass(frozen=True)
class JpegBatch(StepBatch):
    """Qualities of the images that are compressed."""

    rows: Rows
    quality: Float64[Tensor, " k"]
    mode: str

    def select(self, samples: list[int]) -> JpegBatch:
        """The qualities of some images."""
        rows, old_rows = self.rows.select(samples)
        return JpegBatch(rows, self.quality[old_rows], self.mode)

    def apply(self, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Compress the images that have a quality."""
        own_px = size_px[self.rows.index]
        return self.rows.apply(image, lambda part: jpeg(part, self.quality, own_px, mode=self.mode)), size_px


def _stack(steps: Sequence[Jpeg], _: Sequence[int]) -> JpegBatch:
    rows = Rows.where([step.quality is not None for step in steps])
    quality = torch.tensor([steps[row].quality for row in rows.index.tolist()], dtype=torch.float64)
    return JpegBatch(rows, quality, steps[0].mode)


JPEG = Application("jpeg", _stack)

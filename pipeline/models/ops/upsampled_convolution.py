"""A 3x3 convolution of a bilinearly upsampled map with a quarter of the work and no upsampled map.

Why it stays: over its plain twin it saves about a sixth of a U+SeD training step on a CPU (`benchmarks/ops.py`). On a
GPU the plain twin is the faster one (docs/benchmarks.md), and is used.

Bilinear upsampling by 2 inserts zeros between the pixels and smooths by (1, 3, 3, 1) / 4 along each axis. Smoothing and
convolution commute, so the convolution may come first, where three of four inputs are zero: of nine taps, 2.25 per
output remain, and the smoothing runs on the output channels. Only the borders do not commute: the convolution pads the
upsampled map with zeros, where smoothing replicates its edge. So the contribution of the replicated edge is subtracted
from the outermost rows and columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.models.ops.memory_layout import new_map

_SMOOTHING = (0.25, 0.75, 0.75, 0.25)
# Taps that meet a nonzero input: the middle one where the output lies on a pixel, both outer ones between two pixels.
_TAPS = (slice(1, 2), slice(0, 3, 2))
_PHASES = [(row, column) for row in (0, 1) for column in (0, 1)]


def upsampled_convolution_plain(
    features: Float[Tensor, "n c_in h w"], weight: Float[Tensor, "c_out c_in 3 3"]
) -> Float[Tensor, "n c_out 2*h 2*w"]:
    """The mathematics: bilinear upsampling by 2, then a convolution with padding 1."""
    return F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), weight, padding=1)


def upsampled_convolution(
    features: Float[Tensor, "n c_in h w"], weight: Float[Tensor, "c_out c_in 3 3"]
) -> Float[Tensor, "n c_out 2*h 2*w"]:
    """Compute `upsampled_convolution_plain`, equal up to rounding, borders included."""
    if features.is_cuda:
        return upsampled_convolution_plain(features, weight)
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    phases = [F.conv2d(padded, weight[:, :, _TAPS[row], _TAPS[column]]) for row, column in _PHASES]
    out = _smooth(_interleave(phases))
    for index, edge in enumerate(_replicated_edges(features, weight)):
        _borders(out)[index].sub_(edge)
    return out


def _interleave(phases: list[Tensor]) -> Tensor:
    """Merge the convolution's outputs at even and odd rows and columns into one map."""
    n, channels, height, width = phases[0].shape
    mixed = new_map(phases[0], (n, channels, 2 * height - 1, 2 * width - 1))
    for (row, column), phase in zip(_PHASES, phases, strict=True):
        mixed[:, :, row::2, column::2] = phase
    return mixed


def _smooth(features: Tensor) -> Tensor:
    channels = features.shape[1]
    line = features.new_tensor(_SMOOTHING)
    return F.conv2d(features, (line[:, None] * line).expand(channels, 1, 4, 4), groups=channels)


def _replicated_edges(features: Tensor, weight: Tensor) -> list[Tensor]:
    """Convolve the lines just beyond each border of the upsampled map; top and bottom include the corners."""
    top, bottom, left, right = _borders(features)
    return [
        F.conv2d(_upsample_line(top, corners=True), weight[:, :, :1]),
        F.conv2d(_upsample_line(bottom, corners=True), weight[:, :, 2:]),
        F.conv2d(_upsample_line(left.mT), weight[:, :, :, :1].mT, padding=(0, 1)).mT,
        F.conv2d(_upsample_line(right.mT), weight[:, :, :, 2:].mT, padding=(0, 1)).mT,
    ]


def _upsample_line(line: Tensor, *, corners: bool = False) -> Tensor:
    upsampled = F.interpolate(line, scale_factor=(1, 2), mode="bilinear")
    return F.pad(upsampled, (1, 1, 0, 0), mode="replicate") if corners else upsampled


def _borders(features: Tensor) -> list[Tensor]:
    """Return views of the top and bottom row and the left and right column."""
    return [features[:, :, :1], features[:, :, -1:], features[..., :1], features[..., -1:]]

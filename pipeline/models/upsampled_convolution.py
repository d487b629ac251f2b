"""A 3x3 convolution of a bilinearly enlarged map, with a quarter of the work and without building the enlarged map.

Guarantees: equal, up to rounding, to `F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), weight,
padding=1)`, borders included.

Enlarging twice is: put zeros between the pixels, then smooth by (1, 3, 3, 1) / 4 each way. Smoothing and convolving
commute, so the convolution may come first, where three of four inputs are zero: of nine taps, 2.25 a pixel are left,
and the smoothing runs over the channels out. What does not commute is the convolution's zero padding: the enlarged
map goes on beyond its border, the padded one does not. That touches one line of pixels on each side, where what the
line beyond added is taken away again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SMOOTHING = (0.25, 0.75, 0.75, 0.25)
# Taps that meet a pixel: the middle one where the output lies on a pixel, both outer ones where it lies between two.
_TAPS = (slice(1, 2), slice(0, 3, 2))


def convolve_upsampled(features: Tensor, weight: Tensor) -> Tensor:
    """Enlarge twice, bilinearly, then convolve with padding 1.

    Args:
        features: (n, channels in, h, w).
        weight: (channels out, channels in, 3, 3).

    Returns:
        (n, channels out, 2 h, 2 w).
    """
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    phases = [F.conv2d(padded, weight[:, :, rows, columns]) for rows in _TAPS for columns in _TAPS]
    return _Smooth.apply(*phases, *_beyond(features, weight))


def _beyond(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Convolve the lines of the enlarged map just beyond its top, bottom, left and right border.

    They repeat the outermost lines; the corners are in top and bottom alone.
    """
    lines = []
    for row, tap in ((0, 0), (-1, 2)):
        line = F.interpolate(features[:, :, row, None], scale_factor=(1, 2), mode="bilinear")
        line = F.pad(line, (1, 1, 0, 0), mode="replicate")
        lines.append(F.conv2d(line, weight[:, :, tap, None]))
    for column, tap in ((0, 0), (-1, 2)):
        line = F.interpolate(features[:, :, :, column, None], scale_factor=(2, 1), mode="bilinear")
        lines.append(F.conv2d(line, weight[:, :, :, tap, None], padding=(1, 0)))
    return lines[0], lines[1], lines[2], lines[3]


class _Smooth(torch.autograd.Function):
    """Interleave the four phases, smooth them, and take away what lies beyond the border.

    Linear, so nothing is kept for the backward pass; composed of torch's own operators it would keep the map.
    """

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        """Map four phases and four border lines to the result."""
        phases, (top, bottom, left, right) = parts[:4], parts[4:]
        n, channels, height, width = phases[0].shape
        mixed = phases[0].new_empty((n, channels, 2 * height - 1, 2 * width - 1))
        for phase, part in zip(_phases(mixed), phases, strict=True):
            phase.copy_(part)
        out = F.conv2d(mixed, _smoothing(mixed), groups=channels)
        out[:, :, 0, None] -= top
        out[:, :, -1, None] -= bottom
        out[:, :, :, 0, None] -= left
        out[:, :, :, -1, None] -= right
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Apply the transpose; the smoothing is its own mirror image."""
        (gradient,) = gradients
        smooth = F.conv2d(gradient, _smoothing(gradient), padding=3, groups=gradient.shape[1])
        top, bottom = -gradient[:, :, 0, None], -gradient[:, :, -1, None]
        left, right = -gradient[:, :, :, 0, None], -gradient[:, :, :, -1, None]
        return (*(phase.contiguous() for phase in _phases(smooth)), top, bottom, left, right)


def _phases(mixed: Tensor) -> list[Tensor]:
    return [mixed[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _smoothing(features: Tensor) -> Tensor:
    line = features.new_tensor(_SMOOTHING)
    return (line[:, None] * line).expand(features.shape[1], 1, 4, 4)

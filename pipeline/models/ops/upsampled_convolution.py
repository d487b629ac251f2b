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

from pipeline.models.ops.memory_layout import layout, new_map

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
    padded, top, bottom, left, right = _Frame.apply(features)
    phases = [F.conv2d(padded, weight[:, :, rows, columns]) for rows in _TAPS for columns in _TAPS]
    # What lies just beyond a border repeats the outermost line; the corners are in top and bottom alone.
    lines = [
        F.conv2d(_enlarge(top, corners=True), weight[:, :, :1]),
        F.conv2d(_enlarge(bottom, corners=True), weight[:, :, 2:]),
        F.conv2d(_enlarge(left.mT), weight[:, :, :, :1].mT, padding=(0, 1)).mT,
        F.conv2d(_enlarge(right.mT), weight[:, :, :, 2:].mT, padding=(0, 1)).mT,
    ]
    return _Smooth.apply(*phases, *lines)


def _enlarge(line: Tensor, *, corners: bool = False) -> Tensor:
    enlarged = F.interpolate(line, scale_factor=(1, 2), mode="bilinear")
    return F.pad(enlarged, (1, 1, 0, 0), mode="replicate") if corners else enlarged


class _Frame(torch.autograd.Function):
    """Pad by one pixel, repeating the outermost, and cut out the four outermost lines.

    Composed of torch's own operators it would build five maps of the gradient, four of them nearly empty.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, ...]:
        """Map (n, c, h, w) to (n, c, h + 2, w + 2), twice (n, c, 1, w) and twice (n, c, h, 1)."""
        padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
        return (padded, *(line.clone() for line in _outermost(features)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Bring what the frame and the lines got back to the pixels that they repeat."""
        padded, *lines = gradients
        rows = padded[:, :, 1:-1].contiguous(memory_format=layout(padded))
        rows[:, :, :1] += padded[:, :, :1]
        rows[:, :, -1:] += padded[:, :, -1:]
        gradient = rows[..., 1:-1].contiguous(memory_format=layout(padded))
        gradient[..., :1] += rows[..., :1]
        gradient[..., -1:] += rows[..., -1:]
        for line, theirs in zip(_outermost(gradient), lines, strict=True):
            line += theirs
        return gradient


def _outermost(features: Tensor) -> list[Tensor]:
    return [features[:, :, :1], features[:, :, -1:], features[..., :1], features[..., -1:]]


class _Smooth(torch.autograd.Function):
    """Interleave the four phases, smooth them, and take away what lies beyond the border.

    Linear, so nothing is kept for the backward pass; composed of torch's own operators it would keep the map.
    """

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        """Map four phases and four border lines to the result."""
        phases, lines = parts[:4], parts[4:]
        n, channels, height, width = phases[0].shape
        mixed = new_map(phases[0], (n, channels, 2 * height - 1, 2 * width - 1))
        for phase, part in zip(_phases(mixed), phases, strict=True):
            phase.copy_(part)
        out = F.conv2d(mixed, _smoothing(mixed), groups=channels)
        for line, beyond in zip(_outermost(out), lines, strict=True):
            line -= beyond
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Apply the transpose; the smoothing is its own mirror image."""
        (gradient,) = gradients
        smooth = F.conv2d(gradient, _smoothing(gradient), padding=3, groups=gradient.shape[1])
        phases = [phase.contiguous(memory_format=layout(gradient)) for phase in _phases(smooth)]
        return (*phases, *(-line for line in _outermost(gradient)))


def _phases(mixed: Tensor) -> list[Tensor]:
    return [mixed[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _smoothing(features: Tensor) -> Tensor:
    line = features.new_tensor(_SMOOTHING)
    return (line[:, None] * line).expand(features.shape[1], 1, 4, 4)

"""MATLAB's bicubic resizing for float batches, on their device; `shards.degradation.bicubic` states the filter.

Not rounded and not clipped: callers that want 8-bit images do both. Differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shards.degradation.bicubic import SCALES, downscale_taps, upscale_taps
from shards.errors import InputError


def downscale(image: Tensor, scale: int) -> Tensor:
    """Shrink a batch `scale` times, antialiased.

    Args:
        image: (N, C, H, W), floating; both sides multiples of the scale.
        scale: 2, 3 or 4.

    Returns:
        (N, C, H / scale, W / scale), of the same type.

    Raises:
        InputError: Another scale or shape, or a side that is not a multiple of the scale.
    """
    _check(image, scale)
    height_px, width_px = image.shape[2:]
    if height_px % scale or width_px % scale:
        raise InputError(f"cannot shrink {height_px}x{width_px} px by {scale}; crop to a multiple of {scale} first")
    return _shrink(_shrink(image, scale, dim=2), scale, dim=3)


def upscale(image: Tensor, scale: int) -> Tensor:
    """Enlarge a batch `scale` times.

    Args:
        image: (N, C, H, W), floating, of any size.
        scale: 2, 3 or 4.

    Returns:
        (N, C, H * scale, W * scale), of the same type.

    Raises:
        InputError: Another scale or shape.
    """
    _check(image, scale)
    return _enlarge(_enlarge(image, scale, dim=2), scale, dim=3)


def _shrink(image: Tensor, scale: int, dim: int) -> Tensor:
    taps = downscale_taps(scale)
    before, size_px = -taps[0][0], image.shape[dim]
    padded = _mirror(image, before, taps[-1][0] + 1 - scale, dim)
    phases = torch.arange(0, size_px, scale, device=image.device) + before
    parts = [weight * padded.index_select(dim, phases + offset) for offset, weight in taps]
    return torch.stack(parts).sum(dim=0)


def _enlarge(image: Tensor, scale: int, dim: int) -> Tensor:
    size_px = image.shape[dim]
    padded = _mirror(image, 2, 2, dim)
    phases = []
    for phase in range(scale):
        parts = [weight * padded.narrow(dim, 2 + k, size_px) for k, weight in upscale_taps(scale, phase)]
        phases.append(torch.stack(parts).sum(dim=0))
    return torch.stack(phases, dim=dim + 1).flatten(dim, dim + 1)


def _mirror(image: Tensor, before: int, after: int, dim: int) -> Tensor:
    """Pad by mirroring, the edge pixel repeated; mirrors again where the image is smaller than the border."""
    size_px = image.shape[dim]
    position = torch.arange(-before, size_px + after, device=image.device) % (2 * size_px)
    return image.index_select(dim, torch.minimum(position, 2 * size_px - 1 - position))


def _check(image: Tensor, scale: int) -> None:
    if scale not in SCALES:
        raise InputError(f"bicubic resizing knows the scales {SCALES}; got {scale}")
    if image.ndim != 4 or not image.is_floating_point() or 0 in image.shape:
        raise InputError(
            f"bicubic resizing needs floating (batch, channels, height, width); got {image.dtype} {tuple(image.shape)}"
        )

"""Borders of images of different sizes in one padded batch: where each pixel beyond an image comes from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mirrored_index(size_px: Int[Tensor, " n"], margin_px: int, length_px: int) -> Int[Tensor, "n t"]:
    """Source of each pixel along an axis whose borders mirror without repeating the edge pixel.

    Args:
        size_px: Side of each image.
        margin_px: Border before the image.
        length_px: Length of the result, borders included.

    Returns:
        Positions from 0 to size - 1.
    """
    period = (2 * size_px - 2).clamp(min=1).view(-1, 1)
    position = torch.arange(length_px, device=size_px.device).view(1, -1) - margin_px
    folded = torch.remainder(position, period)
    return torch.minimum(folded, period - folded).minimum(size_px.view(-1, 1) - 1)


def repeated_index(size_px: Int[Tensor, " n"], margin_px: int, length_px: int) -> Int[Tensor, "n t"]:
    """As `mirrored_index`, for borders that repeat the edge pixel."""
    position = torch.arange(length_px, device=size_px.device).view(1, -1) - margin_px
    return torch.minimum(position.clamp(min=0), size_px.view(-1, 1) - 1)


def take(image: Float[Tensor, "n c s s"], index: Int[Tensor, "n t"]) -> Float[Tensor, "n c t t"]:
    """Gather rows and columns by the same index."""
    num, channels, side_px, _ = image.shape
    length = index.shape[1]
    rows = image.gather(2, index.view(num, 1, length, 1).expand(num, channels, length, side_px))
    return rows.gather(3, index.view(num, 1, 1, length).expand(num, channels, length, length))

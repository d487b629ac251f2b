"""Window arithmetic of SwinIR: cutting, joining, relative positions and the mask of a shifted grid.

Everything is computed from sizes alone, so no weight or buffer depends on an image size.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

# Large enough to silence a pair of tokens after softmax, finite so that bf16 and fp16 stay well defined.
MASKED_SCORE = -100.0


def split_windows(features: Shaped[Tensor, "n h w c"], window_px: int) -> Shaped[Tensor, "n windows tokens c"]:
    """Cut features into windows of `window_px**2` tokens, row by row; h and w are whole windows."""
    n, height, width, channels = features.shape
    grid = features.view(n, height // window_px, window_px, width // window_px, window_px, channels)
    return grid.transpose(2, 3).reshape(n, -1, window_px**2, channels)


def join_windows(
    windows: Shaped[Tensor, "n windows tokens c"], height: int, width: int, window_px: int
) -> Shaped[Tensor, "n {height} {width} c"]:
    """Undo `split_windows`."""
    n, channels = windows.shape[0], windows.shape[-1]
    grid = windows.view(n, height // window_px, width // window_px, window_px, window_px, channels)
    return grid.transpose(2, 3).reshape(n, height, width, channels)


def relative_position_index(window_px: int) -> Int64[Tensor, "{window_px**2} {window_px**2}"]:
    """Return the index of the relative position of each pair of tokens in a window, in [0, (2 * window_px - 1)**2)."""
    side = torch.arange(window_px)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
    row_offset = rows[:, None] - rows[None, :] + window_px - 1
    column_offset = columns[:, None] - columns[None, :] + window_px - 1
    return row_offset * (2 * window_px - 1) + column_offset


def shifted_window_mask(
    height: int, width: int, window_px: int, device: torch.device | None = None
) -> Float32[Tensor, "windows {window_px**2} {window_px**2}"]:
    """Return the mask that separates pixels which a cyclic shift by half a window has brought together.

    It is 0 for pairs that may attend to each other and -100 for the others.
    """
    region = _regions(height, window_px, device)[:, None] * 3 + _regions(width, window_px, device)[None, :]
    windows = split_windows(region[None, :, :, None], window_px)[0, :, :, 0]
    differs = windows[:, :, None] != windows[:, None, :]
    return differs.to(torch.float32) * MASKED_SCORE


def _regions(side_px: int, window_px: int, device: torch.device | None) -> Tensor:
    position = torch.arange(side_px, device=device)
    return (position >= side_px - window_px).long() + (position >= side_px - window_px // 2).long()

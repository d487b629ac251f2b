"""In which order a map lies in memory, and new maps that lie alike.

A map that lies otherwise than what it meets is copied or, worse, read across its rows: at full resolution that takes
longer than many a convolution.
"""

import torch
from torch import Tensor


def layout(features: Tensor) -> torch.memory_format:
    """Return the memory format of (n, c, h, w), or of the map that it is a part of."""
    is_last = features.stride(1) == 1 and features.shape[1] > 1
    return torch.channels_last if is_last else torch.contiguous_format


def new_map(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return an empty map of another shape, of the dtype, device and memory format of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout(like))

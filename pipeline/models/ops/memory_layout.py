"""Memory layouts of feature maps (n, c, h, w).

An operator whose inputs differ in layout copies one of them or reads it with large strides; at full resolution that
takes longer than many a convolution.
"""

import torch
from torch import Tensor


def new_map(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return an uninitialised map with the dtype, device and layout of `like`, or of the map that it is a slice of."""
    is_channels_last = like.stride(1) == 1 and like.shape[1] > 1
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)

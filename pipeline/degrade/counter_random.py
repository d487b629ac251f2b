"""Philox4x32-10 on tensors: random words that are a function of a counter and a key, the same on every device.

Words are int64 tensors in [0, 2**32), because torch's unsigned types lack the arithmetic.

References:
    Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3; the constants and test vectors are theirs.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_NUM_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random words per counter.

    Args:
        counter: Four tensors that broadcast together.
        key: Two tensors that broadcast with them.

    Returns:
        Four tensors of the common shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_NUM_ROUNDS):
        # The product may overflow int64; its 64 bits are those of the unsigned product all the same.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = _high(p1) ^ c1 ^ k0, p1 & _LOW, _high(p0) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & _LOW


def pixel_words(seed: Int[Tensor, "n 4"], stream: int, side_px: int) -> Words:
    """Four words per pixel of square images, the same for any padding.

    Args:
        seed: The four 32-bit words of each image's seed.
        stream: Number that separates the fields of different steps.
        side_px: Side of the images, below 65536.

    Returns:
        Four tensors (n, 1, side, side). The counter is the pixel, the stream and half the seed; the key is the
        other half.
    """
    axis = torch.arange(side_px, device=seed.device)
    pixel = (axis.view(1, 1, -1, 1) << 16) | axis.view(1, 1, 1, -1)
    s0, s1, s2, s3 = (seed[:, k].view(-1, 1, 1, 1) for k in range(4))
    which = torch.full_like(s0, stream)
    return philox((pixel, which, s2, s3), (s0, s1))

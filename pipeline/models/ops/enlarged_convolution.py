"""A 3x3 convolution of a map enlarged by nearest neighbour, without building the enlarged map.

Guarantees: equal, up to rounding, to `convolution(F.interpolate(features, scale_factor=factor, mode="nearest"))`,
borders included.

All that a pixel of the small map adds to the result is its value times the sum of the weights, shifted once for each of
its `factor` squared copies: a transposed convolution, with (factor + 2)^2 taps a pixel of the small map instead of
9 factor^2. For a factor of 2 these are 4/9 of the work.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def convolve_enlarged(features: Tensor, convolution: nn.Conv2d, factor: int) -> Tensor:
    """Repeat each pixel `factor` times each way, then convolve.

    Args:
        features: (n, channels in, h, w).
        convolution: 3x3, with padding 1.
        factor: By how much to enlarge.

    Returns:
        (n, channels out, factor h, factor w).
    """
    if features.device.type != "cpu":
        # A GPU's transposed convolutions have fewer fast kernels; whether they win there has not been measured.
        return convolution(F.interpolate(features, scale_factor=factor, mode="nearest"))
    return F.conv_transpose2d(features, _spread(convolution.weight, factor), convolution.bias, factor, padding=1)


def _spread(weight: Tensor, factor: int) -> Tensor:
    """Map a weight (channels out, channels in, 3, 3) to (channels in, channels out, factor + 2, factor + 2)."""
    # A transposed convolution lays its weight down as it is, a convolution turned by half; then sum over the copies.
    padded = F.pad(weight.flip(2, 3).transpose(0, 1), [factor - 1] * 4)
    return F.avg_pool2d(padded, factor, stride=1, divisor_override=1)

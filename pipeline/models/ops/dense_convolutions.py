"""The convolutions of a dense block, keeping each feature map once for the backward pass.

Why it stays: built from torch's operators, autograd saves the input of every convolution, 768 channels per block for
64 features and growth 32. All of them are prefixes of the longest one, so this saves that one alone, 192 channels. For
a 256-px image that is 3 MiB instead of 11 MiB per block, 552 MiB less over RRDB's 69 blocks, in the same time
(`benchmarks/ops.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.ops.autocast import cast_as_autocast_would, without_autocast
from pipeline.models.ops.memory_layout import new_map


def dense_convolutions_plain(
    features: Float[Tensor, "n c h w"], convolutions: Sequence[nn.Conv2d], slope: float
) -> Float[Tensor, "n c_out h w"]:
    """The mathematics: every convolution sees the features and all outputs before its own."""
    *growing, last = convolutions
    for convolution in growing:
        grown = F.leaky_relu(convolution(features), slope)
        features = torch.cat((features, grown), dim=1)
    return last(features)


def dense_convolutions(
    features: Float[Tensor, "n c h w"], convolutions: Sequence[nn.Conv2d], slope: float
) -> Float[Tensor, "n c_out h w"]:
    """Compute `dense_convolutions_plain`; the same bits forward, gradients up to the order of addition.

    Args:
        features: Input of the block.
        convolutions: 3x3, with padding 1 and a bias; each takes the channels of `features` and of all outputs before.
        slope: Negative slope of the LeakyReLU after each convolution but the last.
    """
    parameters = [part for layer in convolutions for part in (layer.weight, layer.get_parameter("bias"))]
    inputs = cast_as_autocast_would([features, *parameters])
    with without_autocast(features.device):
        return _DenseConvolutions.apply(slope, *inputs)


class _DenseConvolutions(torch.autograd.Function):
    """Writes each output behind its input, in one buffer that all convolutions read a prefix of."""

    @staticmethod
    def forward(ctx: Any, slope: float, features: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        n, channels, height, width = features.shape
        seen = new_map(features, (n, weights[-1].shape[1], height, width))
        seen[:, :channels] = features
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            start, stop = weight.shape[1], weight.shape[1] + weight.shape[0]
            grown = F.conv2d(seen[:, :start], weight, bias, padding=1)
            seen[:, start:stop] = F.leaky_relu_(grown, slope)
        ctx.slope = slope
        ctx.save_for_backward(seen, *weights)
        return F.conv2d(seen, weights[-1], biases[-1], padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        seen, *weights = ctx.saved_tensors
        to_seen, *to_parameters = _convolution_backward(gradient, seen, weights[-1])
        for weight in reversed(weights[:-1]):
            start, stop = weight.shape[1], weight.shape[1] + weight.shape[0]
            # The activation's output has its input's sign, so the buffer serves for the slope as well.
            grown = torch.ops.aten.leaky_relu_backward(to_seen[:, start:stop], seen[:, start:stop], ctx.slope, True)
            more, *own = _convolution_backward(grown, seen[:, :start], weight)
            to_seen, to_parameters = to_seen[:, :start].add_(more), [*own, *to_parameters]
        return (None, to_seen, *to_parameters)


def _convolution_backward(gradient: Tensor, seen: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and bias of a 3x3 convolution with padding 1."""
    one, zero = (1, 1), (0, 0)
    return torch.ops.aten.convolution_backward(
        gradient, seen, weight, [weight.shape[0]], one, one, one, False, zero, 1, (True, True, True)
    )

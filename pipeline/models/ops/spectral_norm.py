"""A convolution whose weight is divided by its largest singular value.

Written as a module of its own, not as torch's hook or parametrisation, because a discriminator must survive
`copy.deepcopy` after a forward pass, construction on the meta device, DDP, DeepSpeed and `torch.compile`, and
because the estimate must stay in float32 under autocast. Each forward pass in training mode makes one power
iteration, in the order of torch's first implementation, which the reference uses.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.ops.autocast import without_autocast
from pipeline.models.ops.memory_layout import layout

_EPSILON = 1e-12


class SpectralNormConv2d(nn.Conv2d):
    """`nn.Conv2d` with a spectrally normalised weight.

    Buffers `weight_u` (channels out) and `weight_v` (all other axes) estimate the first singular vectors. In
    evaluation mode they are used as they are.

    References:
        Miyato et al. 2018, Spectral Normalization for GANs, arXiv:1802.05957, Algorithm 1.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_px: int,
        *,
        stride: int = 1,
        padding: int = 1,
        bias: bool,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_px, stride=stride, padding=padding, bias=bias)
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("weight_u", torch.empty(rows))
        self.register_buffer("weight_v", torch.empty(columns))
        self.reset_vectors()

    @torch.no_grad()
    def reset_vectors(self, num_iterations: int = 15) -> None:
        """Start the estimate again from noise; call it after the weight was set from outside."""
        self.weight_u.copy_(F.normalize(self.weight_u.new_empty(self.weight_u.shape).normal_(), dim=0))
        for _ in range(num_iterations):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = _matrix(self.weight)
        v = F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=_EPSILON)
        self.weight_v.copy_(_from_memory_order(v, self.weight))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, v), dim=0, eps=_EPSILON))

    def normalised_weight(self) -> Tensor:
        """Return the weight over its spectral norm; in training mode the estimate moves first."""
        (weight,) = self._normalised_parts(self.in_channels)
        return weight

    def _normalised_parts(self, *channels: int) -> tuple[Tensor, ...]:
        """Return the normalised weight, cut along its channels in."""
        with without_autocast(self.weight.device):
            if self.training:
                self._iterate()
            # Copies, since the next forward pass moves the buffers while this one's graph still needs them.
            u, v = self.weight_u.clone(), _to_memory_order(self.weight_v, self.weight)
            return _Normalise.apply(self.weight, u, v, *channels)

    def forward(self, input: Tensor, *more: Tensor) -> Tensor:
        """Convolve (n, channels_in, h, w), or parts of it in the order of their channels.

        Parts give what their concatenation would, which is never built nor kept for the backward pass.
        """
        first, *others = self._normalised_parts(*(part.shape[1] for part in (input, *more)))
        out = self._conv_forward(input, first, self.bias)
        for part, weight in zip(more, others, strict=True):
            out.add_(self._conv_forward(part, weight, None))
        return out


class _Normalise(torch.autograd.Function):
    """Divide a weight W by s = u^T W v, and cut it along its channels in.

    With G the gradient of W / s, that of W is (G - <G, W> / s u v^T) / s. Composed of torch's own operators, the
    backward pass goes through half a dozen maps of the weight's size, some across the order of memory; here it is one.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, *channels: int) -> tuple[Tensor, ...]:
        """Map (channels out, channels in, k, k) to parts of so many channels in; `v` is in the order of memory."""
        sigma = torch.dot(u, torch.mv(_matrix(weight), v))
        ctx.save_for_backward(weight, sigma, u, v)
        ctx.channels = channels
        return tuple(part / sigma for part in weight.split(channels, dim=1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Go back to the weight alone: the singular vectors are taken for constants."""
        weight, sigma, u, v = ctx.saved_tensors
        to_weight = torch.empty_like(weight)
        for mine, theirs in zip(to_weight.split(ctx.channels, dim=1), gradients, strict=True):
            mine.copy_(theirs)
        matrix = _matrix(to_weight)
        along = torch.dot(matrix.flatten(), _matrix(weight).flatten()) / sigma
        matrix.addr_(-along * u, v).div_(sigma)
        return (to_weight, None, None, *(None for _ in ctx.channels))


def _matrix(weight: Tensor) -> Tensor:
    """View a weight as (channels out, all other axes), the latter in the order of memory."""
    return (weight.permute(0, 2, 3, 1) if layout(weight) is torch.channels_last else weight).flatten(1)


def _to_memory_order(vector: Tensor, weight: Tensor) -> Tensor:
    """Copy a vector over all axes of a weight but the first into the order that `_matrix` has them in."""
    axes = vector.view(1, *weight.shape[1:])
    return _matrix(axes.clone(memory_format=layout(weight)))[0]


def _from_memory_order(vector: Tensor, weight: Tensor) -> Tensor:
    if layout(weight) is torch.contiguous_format:
        return vector
    channels, height, width = weight.shape[1:]
    return vector.view(height, width, channels).permute(2, 0, 1).flatten()

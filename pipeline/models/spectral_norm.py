"""A convolution whose weight is divided by its largest singular value.

Written as a module of its own, not as torch's hook or parametrisation, because a discriminator must survive
`copy.deepcopy` after a forward pass, construction on the meta device, DDP, DeepSpeed and `torch.compile`, and
because the estimate must stay in float32 under autocast. Each forward pass in training mode makes one power
iteration, in the order of torch's first implementation, which the reference uses.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
            self._iterate(self.weight.flatten(1))

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=_EPSILON))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_EPSILON))

    def normalised_weight(self) -> Tensor:
        """Return the weight over its spectral norm; in training mode the estimate moves first."""
        with without_autocast(self.weight.device):
            matrix = self.weight.flatten(1)
            if self.training:
                self._iterate(matrix)
            # Clones, since the next forward pass moves the buffers while this one's graph still needs them.
            sigma = torch.dot(self.weight_u.clone(), torch.mv(matrix, self.weight_v.clone()))
            return self.weight / sigma

    def forward(self, input: Tensor, *more: Tensor) -> Tensor:
        """Convolve (n, channels_in, h, w), or parts of it in the order of their channels.

        Parts give what their concatenation would, which is never built nor kept for the backward pass.
        """
        weight = self.normalised_weight()
        if not more:
            return self._conv_forward(input, weight, self.bias)
        first, *others = weight.split([part.shape[1] for part in (input, *more)], dim=1)
        out = self._conv_forward(input, first, self.bias)
        for part, weight in zip(more, others, strict=True):
            out.add_(self._conv_forward(part, weight, None))
        return out


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which arithmetic on weights keeps the precision of the weights."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)

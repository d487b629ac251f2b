"""A convolution whose weight is divided by its largest singular value.

A module of its own, since torch's hook and parametrisation do not survive all that a discriminator goes through:
`copy.deepcopy` after a forward pass, construction on the meta device, DDP, DeepSpeed, `torch.compile`, and autocast,
under which the estimate must stay in float32. The power iteration is that of `torch.nn.utils.spectral_norm`, which the
released code uses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.ops.autocast import without_autocast

_EPSILON = 1e-12


class SpectralNormConv2d(nn.Conv2d):
    """`nn.Conv2d` with padding 1 and a spectrally normalised weight.

    The buffers `weight_u` (output channels) and `weight_v` (all other axes) estimate the first singular vectors. Each
    forward pass in training mode moves them by one power iteration; evaluation mode leaves them as they are.

    References:
        Miyato et al. 2018, Spectral Normalization for GANs, arXiv:1802.05957, Algorithm 1.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int, *, stride: int = 1, bias: bool) -> None:
        super().__init__(channels_in, channels_out, kernel_px, stride=stride, padding=1, bias=bias)
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("weight_u", torch.empty(rows))
        self.register_buffer("weight_v", torch.empty(columns))
        self.reset_vectors()

    @torch.no_grad()
    def reset_vectors(self, num_iterations: int = 15) -> None:
        """Restart the estimate from noise; call it after setting the weight."""
        self.weight_u.copy_(F.normalize(self.weight_u.new_empty(self.weight_u.shape).normal_(), dim=0))
        for _ in range(num_iterations):
            self._iterate(self.weight.flatten(1))

    @torch.no_grad()
    def _iterate(self, matrix: Float[Tensor, "rows columns"]) -> None:
        self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=_EPSILON))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_EPSILON))

    def normalised_weight(self) -> Float[Tensor, "c_out c_in k k"]:
        """Return W / sigma with sigma = u^T W v; in training mode after a power iteration."""
        with without_autocast(self.weight.device):
            matrix = self.weight.flatten(1)
            if self.training:
                self._iterate(matrix)
            # Copies, since the next forward pass moves the buffers while this one's graph still needs them.
            sigma = torch.dot(self.weight_u.clone(), torch.mv(matrix, self.weight_v.clone()))
            return self.weight / sigma

    def forward(self, input: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Convolve with the normalised weight."""
        return self._conv_forward(input, self.normalised_weight(), self.bias)

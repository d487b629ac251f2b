"""The average of the generator's weights that is evaluated, exported and registered."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Exponential moving average of a network: parameters averaged, buffers copied.

    Averaged buffers would be wrong: a mean of spectral-norm or index buffers is no such buffer any more.

    Attributes:
        module: The averaged network, in evaluation mode, without gradients.
    """

    def __init__(self, source: nn.Module) -> None:
        self.module = copy.deepcopy(source).eval().requires_grad_(False)
        self._averages: list[Tensor] = list(self.module.parameters())
        self._sources: list[Tensor] = list(source.parameters())
        self._buffers = list(zip(self.module.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Keep `decay` of the old average and take `1 - decay` of the weights; 0 copies them."""
        get_ema_multi_avg_fn(decay)(self._averages, self._sources, 0)
        for average, source in self._buffers:
            average.copy_(source)

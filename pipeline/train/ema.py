"""Exponential moving average of the generator, which is evaluated, exported and registered."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Exponential moving average of a network: parameters averaged, buffers copied.

    Buffers are not averaged: a mean of spectral-norm vectors is not one, nor is a mean of indices an index.

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
        """Update the average to `decay * average + (1 - decay) * weights`; 0 copies the weights."""
        get_ema_multi_avg_fn(decay)(self._averages, self._sources, 0)
        for average, source in self._buffers:
            average.copy_(source)

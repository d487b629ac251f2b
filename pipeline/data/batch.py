"""What a training step reads: shapes, ranges and layout, stated once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.degrade import DegradationBatch


@dataclass(frozen=True)
class Batch:
    """One rank's share of one step.

    Attributes:
        hr: (n, 3, H, W) uint8 RGB: the HR crop of a classical sample, or the canvas of a real-world one.
        lq: (n, 3, h, w) uint8 RGB cut from the photo's bicubic LR; None for real-world samples.
        degradation: Drawn parameters of real-world samples; None for classical ones.
        semantics: (n, c, crop/16, crop/16) float16 from the feature cache; None when they are computed online.
        keys: The samples' keys with their variants, in order, for error reports.
        faults: One text for each sample that stands in for a damaged one.
    """

    hr: Tensor
    lq: Tensor | None
    degradation: DegradationBatch | None
    semantics: Tensor | None
    keys: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting for it."""
        return replace(
            self,
            hr=self.hr.to(device, non_blocking=True),
            lq=None if self.lq is None else self.lq.to(device, non_blocking=True),
            degradation=None if self.degradation is None else self.degradation.to(device),
            semantics=None if self.semantics is None else self.semantics.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Pin the tensors for an asynchronous copy; torch's loader calls this."""
        return replace(
            self,
            hr=self.hr.pin_memory(),
            lq=None if self.lq is None else self.lq.pin_memory(),
            semantics=None if self.semantics is None else self.semantics.pin_memory(),
        )

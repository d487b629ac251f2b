"""The batch that a training step reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from pipeline.degrade import DegradationBatch


@dataclass(frozen=True)
class Batch:
    """One rank's share of one step.

    Attributes:
        hr: RGB, the HR crop of a classical sample, or the canvas of a real-world one.
        lq: RGB, cut from the photo's bicubic LQ; None for real-world samples.
        degradation: Drawn parameters of real-world samples; None for classical ones.
        semantics: From the feature cache, on the 16-px grid; None when they are computed online.
        keys: The samples' keys with their variants, in order, for error reports.
        faults: One message per replacement sample.
    """

    hr: UInt8[Tensor, "n 3 hr_px hr_px"]
    lq: UInt8[Tensor, "n 3 lq_px lq_px"] | None
    degradation: DegradationBatch | None
    semantics: Float16[Tensor, "n c grid grid"] | None
    keys: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Copy to a device asynchronously."""
        return replace(
            self,
            hr=self.hr.to(device, non_blocking=True),
            lq=None if self.lq is None else self.lq.to(device, non_blocking=True),
            degradation=None if self.degradation is None else self.degradation.to(device, non_blocking=True),
            semantics=None if self.semantics is None else self.semantics.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Pin the tensors for an asynchronous copy; torch's loader calls this."""
        return replace(
            self,
            hr=self.hr.pin_memory(),
            lq=None if self.lq is None else self.lq.pin_memory(),
            degradation=None if self.degradation is None else self.degradation.pin_memory(),
            semantics=None if self.semantics is None else self.semantics.pin_memory(),
        )

"""Options of the unet discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.models.discriminators.fusion_options import FusionOptions
from pipeline.models.discriminators.options import DiscriminatorName


@dataclass(frozen=True, kw_only=True)
class UNetOptions(FusionOptions):
    """Options of the unet discriminator."""

    ablations = (*FusionOptions.ablations, "placement")

    architecture: DiscriminatorName = DiscriminatorName("unet")
    placement: Literal["decoder", "encoder"] = "decoder"
    """Where the fusion blocks stand; decoder as in the paper's code, encoder as in its figure."""

    @property
    def summary(self) -> str:
        """See `DiscriminatorOptions`."""
        return f"{super().summary}, in the {self.placement}" if self.semantic else ""

"""Options of the unet discriminator."""

from __future__ import annotations

from collections.abc import Mapping
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
    def details(self) -> Mapping[str, str]:
        """See `DiscriminatorOptions`."""
        return {title: f"{text}, in the {self.placement}" for title, text in super().details.items()}

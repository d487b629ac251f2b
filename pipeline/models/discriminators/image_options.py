"""Options of the image discriminator."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.models.discriminators.fusion_options import FusionOptions
from pipeline.models.discriminators.options import DiscriminatorName


@dataclass(frozen=True, kw_only=True)
class ImageOptions(FusionOptions):
    """Options of the image discriminator."""

    architecture: DiscriminatorName = DiscriminatorName("image")

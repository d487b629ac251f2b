"""Discriminators: one file per architecture, and the registry that everything else goes through."""

from pipeline.models.discriminators.base import Discriminator
from pipeline.models.discriminators.contract import (
    DISCRIMINATORS,
    DiscriminatorArchitecture,
    DiscriminatorName,
    DiscriminatorOptions,
    build_discriminator,
)
from pipeline.models.discriminators.files import (
    load_discriminator_weights,
    save_discriminator,
    start_discriminator,
)
from pipeline.models.discriminators.image import ImageArchitecture, ImageDiscriminator, ImageOptions
from pipeline.models.discriminators.patch import PatchArchitecture, PatchDiscriminator, PatchOptions
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.unet import UNetArchitecture, UNetDiscriminator, UNetOptions

DISCRIMINATORS.add(PatchArchitecture())
DISCRIMINATORS.add(UNetArchitecture())
DISCRIMINATORS.add(ImageArchitecture())

__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "DiscriminatorArchitecture",
    "DiscriminatorName",
    "DiscriminatorOptions",
    "ImageDiscriminator",
    "ImageOptions",
    "PatchDiscriminator",
    "PatchOptions",
    "SemanticFusionBlock",
    "UNetDiscriminator",
    "UNetOptions",
    "build_discriminator",
    "load_discriminator_weights",
    "save_discriminator",
    "start_discriminator",
]

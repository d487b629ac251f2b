"""Discriminators: one file per architecture, and the registry that everything else goes through."""

from typing import TYPE_CHECKING

from pipeline.models.discriminators.features_options import FeatureOptions
from pipeline.models.discriminators.image_options import ImageOptions
from pipeline.models.discriminators.options import DISCRIMINATORS, DiscriminatorName, DiscriminatorOptions
from pipeline.models.discriminators.patch_options import PatchOptions
from pipeline.models.discriminators.unet_options import UNetOptions
from pipeline.registry import imported_on_first_use

if TYPE_CHECKING:
    from pipeline.models.discriminators.base import Discriminator
    from pipeline.models.discriminators.contract import DiscriminatorArchitecture, build_discriminator
    from pipeline.models.discriminators.features import FeatureDiscriminator
    from pipeline.models.discriminators.files import (
        initial_discriminator_weights,
        load_discriminator_weights,
        save_discriminator,
        start_discriminator,
    )
    from pipeline.models.discriminators.image import ImageDiscriminator
    from pipeline.models.discriminators.patch import PatchDiscriminator
    from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
    from pipeline.models.discriminators.unet import UNetDiscriminator

DISCRIMINATORS.announce(PatchOptions, "pipeline.models.discriminators.patch")
DISCRIMINATORS.announce(UNetOptions, "pipeline.models.discriminators.unet")
DISCRIMINATORS.announce(ImageOptions, "pipeline.models.discriminators.image")
DISCRIMINATORS.announce(FeatureOptions, "pipeline.models.discriminators.features")

__getattr__ = imported_on_first_use(
    __name__,
    {
        "base": ["Discriminator"],
        "contract": ["DiscriminatorArchitecture", "build_discriminator"],
        "files": [
            "initial_discriminator_weights",
            "load_discriminator_weights",
            "save_discriminator",
            "start_discriminator",
        ],
        "features": ["FeatureDiscriminator"],
        "image": ["ImageDiscriminator"],
        "patch": ["PatchDiscriminator"],
        "semantic_fusion": ["SemanticFusionBlock"],
        "unet": ["UNetDiscriminator"],
    },
)

__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "DiscriminatorArchitecture",
    "DiscriminatorName",
    "DiscriminatorOptions",
    "FeatureDiscriminator",
    "FeatureOptions",
    "ImageDiscriminator",
    "ImageOptions",
    "PatchDiscriminator",
    "PatchOptions",
    "SemanticFusionBlock",
    "UNetDiscriminator",
    "UNetOptions",
    "build_discriminator",
    "initial_discriminator_weights",
    "load_discriminator_weights",
    "save_discriminator",
    "start_discriminator",
]

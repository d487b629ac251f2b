"""SeD as a part: what other trainers import (docs/integrate.md).

The rooms of this project, `pipeline` and `shards`, are its own; these names are kept. Importing them takes torch and
no launcher, tracker or cluster.
"""

from typing import TYPE_CHECKING

from pipeline.registry import imported_on_first_use

if TYPE_CHECKING:
    from pipeline.models.discriminators.conditioned import ConditionedDiscriminator
    from pipeline.models.discriminators.features import FeatureDiscriminator
    from pipeline.models.discriminators.image import ImageDiscriminator
    from pipeline.models.discriminators.patch import PatchDiscriminator
    from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
    from pipeline.models.discriminators.unet import UNetDiscriminator
    from pipeline.models.semantics.extractor import (
        FrozenMaps,
        SemanticExtractor,
        build_frozen_maps,
        build_semantic_extractor,
    )

__getattr__ = imported_on_first_use(
    "pipeline.models",
    {
        "discriminators.conditioned": ["ConditionedDiscriminator"],
        "discriminators.features": ["FeatureDiscriminator"],
        "discriminators.image": ["ImageDiscriminator"],
        "discriminators.patch": ["PatchDiscriminator"],
        "discriminators.semantic_fusion": ["SemanticFusionBlock"],
        "discriminators.unet": ["UNetDiscriminator"],
        "semantics.extractor": ["FrozenMaps", "SemanticExtractor", "build_frozen_maps", "build_semantic_extractor"],
    },
)

__all__ = [
    "ConditionedDiscriminator",
    "FeatureDiscriminator",
    "FrozenMaps",
    "ImageDiscriminator",
    "PatchDiscriminator",
    "SemanticExtractor",
    "SemanticFusionBlock",
    "UNetDiscriminator",
    "build_frozen_maps",
    "build_semantic_extractor",
]

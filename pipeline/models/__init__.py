"""Networks: generators, discriminators, the semantic-aware fusion block, semantic extractors."""

from typing import TYPE_CHECKING

from pipeline.registry import imported_on_first_use

if TYPE_CHECKING:
    from pipeline.models.discriminators import (
        ImageDiscriminator,
        PatchDiscriminator,
        SemanticFusionBlock,
        UNetDiscriminator,
        build_discriminator,
        load_discriminator_weights,
        save_discriminator,
    )
    from pipeline.models.generators import (
        RRDBNet,
        SRVGGNetCompact,
        SwinIR,
        build_generator,
        load_generator,
        load_generator_weights,
        recognise_generator,
        save_generator,
    )
    from pipeline.models.semantics.extractor import SemanticExtractor, build_backbone, build_semantic_extractor

__getattr__ = imported_on_first_use(
    __name__,
    {
        "discriminators": [
            "ImageDiscriminator",
            "PatchDiscriminator",
            "SemanticFusionBlock",
            "UNetDiscriminator",
            "build_discriminator",
            "load_discriminator_weights",
            "save_discriminator",
        ],
        "generators": [
            "RRDBNet",
            "SRVGGNetCompact",
            "SwinIR",
            "build_generator",
            "load_generator",
            "load_generator_weights",
            "recognise_generator",
            "save_generator",
        ],
        "semantics.extractor": ["SemanticExtractor", "build_backbone", "build_semantic_extractor"],
    },
)

__all__ = [
    "ImageDiscriminator",
    "PatchDiscriminator",
    "RRDBNet",
    "SRVGGNetCompact",
    "SemanticExtractor",
    "SemanticFusionBlock",
    "SwinIR",
    "UNetDiscriminator",
    "build_backbone",
    "build_discriminator",
    "build_generator",
    "build_semantic_extractor",
    "load_discriminator_weights",
    "load_generator",
    "load_generator_weights",
    "recognise_generator",
    "save_discriminator",
    "save_generator",
]

"""From configuration to networks."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.config.schema import DiscriminatorConfig, GeneratorConfig, SemanticsConfig
from pipeline.errors import ConfigError
from pipeline.models import (
    ImageDiscriminator,
    PatchDiscriminator,
    RRDBNet,
    SemanticExtractor,
    SRVGGNetCompact,
    SwinIR,
    UNetDiscriminator,
    build_backbone,
    build_semantic_extractor,
    load_reference_state_dict,
    read_weights,
)

_DISCRIMINATORS = {"patch": PatchDiscriminator, "unet": UNetDiscriminator, "image": ImageDiscriminator}


def build_generator(config: GeneratorConfig) -> nn.Module:
    """Build the generator, with its initial weights where the configuration names a file.

    Raises:
        CheckpointError: The file is unreadable, or of another network.
    """
    generator = _generator_of(config)
    if config.initial_weights is not None:
        load_reference_state_dict(generator, read_weights(config.initial_weights))
    return generator


def _generator_of(config: GeneratorConfig) -> nn.Module:
    if config.architecture == "compact":
        return SRVGGNetCompact(config.num_features, config.num_blocks, config.scale)
    if config.architecture == "rrdb":
        return RRDBNet(
            config.num_features,
            config.num_blocks,
            config.growth_channels,
            config.scale,
            gradient_checkpointing=config.gradient_checkpointing,
        )
    return SwinIR(
        config.scale,
        embed_dim=config.num_features,
        depths=[config.layers_per_block] * config.num_blocks,
        num_heads=[config.num_heads] * config.num_blocks,
        window_px=config.window_size,
        drop_path_probability=config.drop_path_rate,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def build_discriminator(config: DiscriminatorConfig, semantic_channels: int, crop_px: int) -> nn.Module:
    """Build the discriminator; `semantic_channels` counts only when it is a semantic one.

    Raises:
        ConfigError: It cannot judge crops as small as this.
    """
    network = _DISCRIMINATORS[config.architecture]
    if crop_px < network.smallest_side_px:
        raise ConfigError(
            f"data.crop_px={crop_px} is too small for the {config.architecture} discriminator, which needs at least "
            f"{network.smallest_side_px} px"
        )
    options: dict[str, Any] = {"fusion": config.fusion, "residual": config.residual}
    if network is UNetDiscriminator:
        options["placement"] = config.placement
    return network(config.num_features, semantic_channels if config.semantic else None, **options)


def build_extractor(config: SemanticsConfig) -> SemanticExtractor:
    """Build the frozen semantic extractor.

    Raises:
        InputError: The architecture or layer does not exist, or the weights cannot be had.
    """
    return build_semantic_extractor(
        architecture=config.architecture,
        layer=config.layer,
        weights=config.weights,
        seed=config.seed,
        batch_statistics=config.batch_statistics,
    )


def semantic_channels(config: SemanticsConfig) -> int:
    """Return the channels of the semantics, without the extractor's weights."""
    return build_backbone(config.architecture, config.layer).channels

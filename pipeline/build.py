"""From configuration to networks and losses."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.config import DiscriminatorConfig, GeneratorConfig, LossConfig, SemanticsConfig
from pipeline.errors import ConfigError
from pipeline.losses import (
    CharbonnierLoss,
    L1Loss,
    LocallyDiscriminativeLoss,
    PerceptualLoss,
    build_adversarial_loss,
)
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
from pipeline.train.phases import GeneratorLosses

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


def build_losses(config: LossConfig, *, is_adversarial: bool) -> GeneratorLosses:
    """Build the generator's losses; the perceptual network only for a run that uses it.

    Raises:
        InputError: The perceptual weights cannot be had.
    """
    needs_perceptual = is_adversarial and config.perceptual_weight > 0
    perceptual = (
        PerceptualLoss(weights=config.perceptual_weights, seed=config.perceptual_seed) if needs_perceptual else None
    )
    return GeneratorLosses(
        pixel={"l1": L1Loss, "charbonnier": CharbonnierLoss}[config.pixel](),
        pixel_weight=config.pixel_weight,
        perceptual=perceptual,
        perceptual_weight=config.perceptual_weight,
        adversarial=build_adversarial_loss(config.adversarial),
        adversarial_weight=config.adversarial_weight,
        ldl=LocallyDiscriminativeLoss() if config.ldl_weight else None,
        ldl_weight=config.ldl_weight,
    )

"""The frozen semantic extractor that a configuration names."""

from __future__ import annotations

from pipeline.config.schema import SemanticsConfig
from pipeline.models.semantics.extractor import (
    DEFAULT_CROP_PX,
    SemanticExtractor,
    build_backbone,
    build_semantic_extractor,
)
from pipeline.models.semantics.vision_model import Backbone


def build_extractor(config: SemanticsConfig, crop_px: int = DEFAULT_CROP_PX) -> SemanticExtractor:
    """Build the frozen semantic extractor.

    Args:
        config: Names it.
        crop_px: Side of the images to come.

    Raises:
        InputError: The model or layer does not exist or does not fit, or the weights cannot be loaded.
    """
    return build_semantic_extractor(
        architecture=config.architecture,
        layer=config.layer,
        weights=config.weights,
        seed=config.seed,
        batch_statistics=config.batch_statistics,
        crop_px=crop_px,
    )


def describe_extractor(config: SemanticsConfig, crop_px: int = DEFAULT_CROP_PX) -> Backbone:
    """Return the extractor's network on the meta device; loads no weights.

    Raises:
        ConfigError: The model or layer does not exist or does not fit.
    """
    return build_backbone(config.architecture, config.layer, crop_px)


def semantic_channels(config: SemanticsConfig, crop_px: int = DEFAULT_CROP_PX) -> int:
    """Return the channels of the semantics; loads no weights.

    Raises:
        ConfigError: As from `describe_extractor`.
    """
    return describe_extractor(config, crop_px).num_channels

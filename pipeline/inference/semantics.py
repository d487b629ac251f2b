"""The frozen semantic extractor that a configuration names."""

from __future__ import annotations

from pipeline.config.schema import SemanticsConfig
from pipeline.models.semantics.extractor import SemanticExtractor, build_backbone, build_semantic_extractor


def build_extractor(config: SemanticsConfig) -> SemanticExtractor:
    """Build the frozen semantic extractor.

    Raises:
        InputError: The architecture or layer does not exist, or the weights cannot be loaded.
    """
    return build_semantic_extractor(
        architecture=config.architecture,
        layer=config.layer,
        weights=config.weights,
        seed=config.seed,
        batch_statistics=config.batch_statistics,
    )


def semantic_channels(config: SemanticsConfig) -> int:
    """Return the channels of the semantics; loads no weights."""
    return build_backbone(config.architecture, config.layer).channels

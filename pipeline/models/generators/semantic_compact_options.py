"""Options of the compact generator that is shown semantics."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.models.generators.compact_options import CompactOptions
from pipeline.models.generators.options import GeneratorName


@dataclass(frozen=True, kw_only=True)
class SemanticCompactOptions(CompactOptions):
    """Options of the compact generator that is shown semantics."""

    architecture: GeneratorName = GeneratorName("semantic_compact")
    semantics: str = "timm:tf_efficientnet_lite0"
    """Vision model that is shown the enlarged LQ image, as in --semantics.architecture."""
    semantics_layer: int | str = 3
    """Layer, as in --semantics.layer."""
    semantics_weights: str = "package"
    """Its weights, as in --semantics.weights. An exported generator holds them itself."""

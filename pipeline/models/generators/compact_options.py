"""Options of SRVGGNetCompact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import positive, refuse
from pipeline.models.generators.options import GeneratorName, GeneratorOptions


@dataclass(frozen=True, kw_only=True)
class CompactOptions(GeneratorOptions):
    """Options of SRVGGNetCompact."""

    architecture: GeneratorName = GeneratorName("compact")
    num_features: int
    """Channels between the convolutions."""
    num_blocks: int
    """Convolutions between the first and the last."""
    activation: Literal["prelu", "relu", "leakyrelu"] = "prelu"
    """After each convolution but the last; Real-ESRGAN's is prelu."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        refuse(positive(num_features=self.num_features, num_blocks=self.num_blocks))

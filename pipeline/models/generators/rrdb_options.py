"""Options of RRDBNet."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import positive, refuse
from pipeline.models.generators.options import GeneratorName, GeneratorOptions


@dataclass(frozen=True, kw_only=True)
class RRDBOptions(GeneratorOptions):
    """Options of RRDBNet; the paper's sizes are 64, 23 and 32."""

    architecture: GeneratorName = GeneratorName("rrdb")
    num_features: int
    """Channels of the trunk."""
    num_blocks: int
    """Residual-in-residual dense blocks."""
    growth_channels: int = 32
    """Channels that each dense convolution adds."""
    unshuffle_factor: int | None = None
    """Side of the pixel blocks that the input is folded by; none: 2 for x2 and 1 otherwise, as in Real-ESRGAN. KAIR's
    x2 networks have 1."""
    gradient_checkpointing: bool = False
    """Recompute activations block by block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        sizes = {"num_features": self.num_features, "num_blocks": self.num_blocks}
        refuse(positive(**sizes, growth_channels=self.growth_channels, unshuffle_factor=self.unshuffle_factor or 1))

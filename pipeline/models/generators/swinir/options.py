"""Options of SwinIR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import positive, refuse
from pipeline.models.generators.options import GeneratorName, GeneratorOptions


@dataclass(frozen=True, kw_only=True)
class SwinIROptions(GeneratorOptions):
    """Options of SwinIR; those of SwinIR-M, the paper's, are 180 features, 6 blocks and the defaults."""

    architecture: GeneratorName = GeneratorName("swinir")
    num_features: int
    """Embedding dimension; a multiple of `num_heads`."""
    num_blocks: int
    """Residual Swin transformer blocks."""
    layers_per_block: int | tuple[int, ...] = 6
    """Swin layers in every block, or in each of them."""
    num_heads: int | tuple[int, ...] = 6
    """Attention heads in every block, or in each of them."""
    window_size: int = 8
    """Side of an attention window, LQ px."""
    mlp_ratio: float = 2.0
    """Hidden width of the MLPs over `num_features`."""
    upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"] = "pixelshuffle"
    """Last layers: classical, lightweight or real-world SwinIR."""
    residual_connection: Literal["1conv", "3conv"] = "1conv"
    """Convolutions at the end of a block; SwinIR-L has 3conv."""
    drop_path_rate: float = 0.1
    """Stochastic depth: probability, per image, that the deepest layer is skipped in training; 0 at the first layer."""
    training_size_px: int = 64
    """LQ crop that exported files record in their index buffers; nothing is computed from it."""
    gradient_checkpointing: bool = False
    """Recompute activations block by block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        sizes = {"num_features": self.num_features, "num_blocks": self.num_blocks, "window_size": self.window_size}
        refuse(positive(**sizes, mlp_ratio=self.mlp_ratio, training_size_px=self.training_size_px))

"""The networks: the one that is trained to upscale, its judge, and what the judge is told of the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.ranges import positive, refuse
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that is trained to upscale."""

    architecture: Literal["rrdb", "swinir", "compact"]
    """rrdb: RRDBNet of ESRGAN; swinir: SwinIR; compact: SRVGGNetCompact of Real-ESRGAN."""
    scale: Literal[2, 3, 4]
    """Enlargement."""
    num_features: int
    """Channels of the body (SwinIR: embedding dimension)."""
    num_blocks: int
    """rrdb: RRDBs; swinir: residual Swin transformer blocks; compact: convolutions of the body."""
    growth_channels: int = 32
    """rrdb: channels that each dense convolution adds."""
    layers_per_block: int = 6
    """swinir: Swin layers in each block."""
    num_heads: int = 6
    """swinir: attention heads."""
    window_size: int = 8
    """swinir: side of an attention window, LQ px."""
    drop_path_rate: float = 0.1
    """swinir: stochastic depth of the deepest layer."""
    gradient_checkpointing: bool = False
    """Recompute activations block by block in the backward pass: less memory, about a third more time."""
    initial_weights: Path | None = None
    """Generator file to start from (ours, BasicSR's, Real-ESRGAN's, KAIR's, SwinIR's); none: random."""

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(positive(num_features=self.num_features, num_blocks=self.num_blocks))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The network that judges."""

    architecture: Literal["patch", "unet", "image"]
    """patch: PatchGAN (P); unet: pixel-wise U-Net (U); image: VGG-style, one verdict an image (I)."""
    semantic: bool
    """True: SeD, with semantic-aware fusion blocks; false: the plain baseline."""
    num_features: int
    """Channels of the first layer; the paper's is 64."""
    fusion: Literal["cross_attention", "concatenation", "modulation"] = "cross_attention"
    """How image and semantics meet in a fusion block; the paper's is cross_attention, the others are for ablations."""
    residual: bool = False
    """Skip connections inside the fusion blocks, which the paper's code leaves out; for ablations."""
    placement: Literal["decoder", "encoder"] = "decoder"
    """unet: where the fusion blocks stand; decoder as in the paper's code, encoder as in its figure."""

    def __post_init__(self) -> None:
        """Check ranges, and that an ablation has something to change."""
        ablations = ("fusion", "residual", "placement")
        changed = [name for name in ablations if getattr(self, name) != getattr(DiscriminatorConfig, name)]
        refuse(
            [
                *positive(num_features=self.num_features),
                f"{', '.join(changed)} set, but semantic=false builds no fusion block; set semantic=true"
                if changed and not self.semantic
                else None,
                f"placement='encoder' is for architecture='unet' alone; got {self.architecture!r}"
                if self.placement == "encoder" and self.architecture != "unet"
                else None,
            ]
        )


@dataclass(frozen=True)
class SemanticsConfig:
    """Where the discriminator's semantics come from. Only read when discriminator.semantic is true."""

    source: Literal["online", "cached", "auto"]
    """online: the extractor runs every step; cached: read from `cache`; auto: cached where `cache` exists."""
    cache: StoragePath
    """Folder or URL (s3://bucket/prefix) written by jobs/cache_features.py."""
    architecture: str
    """Frozen vision model; the paper's is clip-rn50."""
    layer: int
    """Stage whose output is used; the paper's is 3."""
    weights: str
    """openai (downloaded by open_clip), a file, or random (seeded: for demos and tests only)."""
    seed: int = 0
    """Seed of random weights."""
    batch_statistics: bool = False
    """True reproduces the paper's released code, whose extractor stays in training mode; it cannot be cached."""

    def __post_init__(self) -> None:
        """Check that features which depend on the batch are not cached."""
        conflict = self.batch_statistics and self.source != "online"
        refuse(["batch_statistics=true depends on the batch: set source='online'" if conflict else None])

"""Where the discriminator's semantics come from; the networks' own options are defined next to the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import refuse
from shards.format.expansion import expand
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class SemanticsConfig:
    """Where the discriminator's semantics come from. Only read when discriminator.semantic is true."""

    source: Literal["online", "cached", "auto"]
    """online: the extractor runs every step; cached: read from `cache`; auto: cached where `cache` exists."""
    cache: StoragePath
    """Folder or URL (s3://bucket/prefix) written by jobs/cache_features.py."""
    architecture: str
    """Frozen vision model: clip-rn50 (the paper's), clip-rn101, clip-rn50x4, clip-vit-b16, imagenet-rn50, or
    efficientnet-lite0, whose weights need no download."""
    layer: int
    """Stage whose output is used: 3 in the paper, 5 for efficientnet-lite0."""
    weights: str
    """openai (downloaded by open_clip), package (for efficientnet-lite0; the extra `demo` has it), a file, or random
    (seeded: for tests only)."""
    seed: int = 0
    """Seed of random weights."""
    batch_statistics: bool = False
    """True reproduces the paper's released code, whose extractor stays in training mode; it cannot be cached."""

    def __post_init__(self) -> None:
        """Check that features which depend on the batch are not cached."""
        object.__setattr__(self, "weights", expand(self.weights))
        conflict = self.batch_statistics and self.source != "online"
        refuse(["batch_statistics=true depends on the batch: set source='online'" if conflict else None])

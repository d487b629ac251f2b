"""Where the discriminator's semantics come from; the networks' own options are defined next to the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import refuse
from pipeline.models.semantics.names import present_names
from shards.format.expansion import expand
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class SemanticsConfig:
    """Where the discriminator's semantics come from. Only read when discriminator.semantic is true."""

    architecture: str
    """Frozen vision model: open_clip:NAME (the paper's is open_clip:RN50) or timm:NAME; docs/models.md shows some."""
    layer: int | str
    """Layer whose output is used, by index in the library's forward_intermediates or by name; the paper's is 3."""
    weights: str
    """pretrained (the library's download), package (for timm:tf_efficientnet_lite0; the extra `demo` has it), a file,
    or random (seeded: for tests only)."""
    source: Literal["online", "cached", "mapped", "auto"] = "online"
    """online: the extractor runs every step; cached: read from `cache`; mapped: cut out of the sub-images' maps in
    `cache`, with crops on the grid of 16 px, which approximates (docs/features.md); auto: cached where `cache`
    exists."""
    cache: StoragePath = Path("data/features")
    """Folder or URL (s3://bucket/prefix) written by jobs/cache_features.py."""
    seed: int = 0
    """Seed of random weights."""
    batch_statistics: bool = False
    """True reproduces the paper's released code, whose extractor stays in training mode; it cannot be cached."""
    shuffled: bool = False
    """Each sample gets the semantics of its neighbour in the batch: a control that keeps how the maps look and takes
    away what they say of the image. Needs an even number of images per process."""

    @property
    def mode(self) -> str | None:
        """The mode of the feature cache that is read; None where none is, or where that is still open."""
        return {"cached": "crops", "mapped": "map"}.get(self.source)

    def __post_init__(self) -> None:
        """Take names of earlier versions, and check that features which depend on the batch are not cached."""
        names = present_names(self.architecture, self.layer, expand(self.weights))
        for field, value in zip(("architecture", "layer", "weights"), names, strict=True):
            object.__setattr__(self, field, value)
        conflict = self.batch_statistics and self.source != "online"
        refuse(["batch_statistics=true depends on the batch: set source='online'" if conflict else None])

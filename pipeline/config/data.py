"""Training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import not_negative, positive, refuse
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.format.storage import StoragePath
from shards.read.cache import ShardCache
from shards.read.private import default_cache_dir


@dataclass(frozen=True)
class DataConfig:
    """Training data."""

    shards: StoragePath
    """Folder or URL (s3://bucket/prefix) written by jobs/shard.py."""
    crop_px: int
    """Side of the HR crop that the networks see; a multiple of 16 (one cell of the semantic grid)."""
    canvas_px: int
    """Side of the HR patch that a real-world degradation works on before the crop; ignored for classical shards."""
    batch_size: int
    """Images per step over all processes; the number of processes must divide it."""
    num_workers: int
    """Loader processes for each training process; the data does not depend on it."""
    window_shards: int = 0
    """Number of shards read at a time, for remote data or data larger than memory; 0: all, shuffled as a whole."""
    max_bad_fraction: float = 0.001
    """Largest fraction of an epoch's samples that may be corrupt and replaced; beyond it the run stops."""
    cache_dir: Path = field(default_factory=default_cache_dir)
    """Folder on a local disk of each machine for copies of remote shards; runs of one user may share it."""
    cache_gib: float = 64.0
    """Size limit of the copies; with data.window_shards, room for two windows allows fetching ahead while reading."""

    @property
    def cache(self) -> ShardCache:
        """The cache of remote shards."""
        return ShardCache(self.cache_dir, int(self.cache_gib * 2**30))

    def __post_init__(self) -> None:
        """Check ranges."""
        cell_px = SEMANTIC_STRIDE_PX
        nearest = max(1, round(self.crop_px / cell_px)) * cell_px
        refuse(
            [
                *positive(crop_px=self.crop_px, batch_size=self.batch_size, cache_gib=self.cache_gib),
                *not_negative(
                    num_workers=self.num_workers,
                    window_shards=self.window_shards,
                    max_bad_fraction=self.max_bad_fraction,
                ),
                f"crop_px={self.crop_px} is not a multiple of {cell_px}; nearest is {nearest}"
                if self.crop_px % cell_px
                else None,
                f"canvas_px={self.canvas_px} is smaller than crop_px={self.crop_px}"
                if self.canvas_px < self.crop_px
                else None,
            ]
        )

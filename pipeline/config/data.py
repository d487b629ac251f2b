"""Training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import not_negative, positive, refuse
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.format.storage import StoragePath
from shards.read.cache import ShardCache
from shards.read.private import default_cache_dir

WHOLE = 1000
"""Shares of a mix are counted in thousandths."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentations beside crops and symmetries: each sample draws one kind, or none."""

    cutblur_probability: float = 0.0
    """CutBlur: LQ is clean inside or outside of a rectangle, so that the generator learns where there is nothing to
    restore (Yoo et al. 2020, arXiv:2004.00448). Not for classical shards, whose LQ is clean everywhere."""
    mixup_probability: float = 0.0
    """MixUp: the average of two samples, with weights drawn uniformly. Needs an even number of images per process."""
    cutmix_probability: float = 0.0
    """CutMix: a rectangle of another sample. Needs an even number of images per process."""

    @property
    def probabilities(self) -> tuple[float, float, float, float]:
        """Chances of none, CutBlur, MixUp and CutMix, in this order."""
        chances = (self.cutblur_probability, self.mixup_probability, self.cutmix_probability)
        return (max(0.0, 1.0 - sum(chances)), *chances)

    @property
    def is_used(self) -> bool:
        """Whether any sample is mixed."""
        return self.cutblur_probability > 0 or self.uses_partner

    @property
    def uses_partner(self) -> bool:
        """Whether samples are mixed with each other, HR and semantics included."""
        return self.mixup_probability > 0 or self.cutmix_probability > 0

    def __post_init__(self) -> None:
        """Check ranges."""
        chances = {name: value for name, value in vars(self).items() if name.endswith("_probability")}
        total = sum(chances.values())
        refuse(
            [
                *not_negative(**chances),
                f"{' + '.join(chances)} = {total:g} must be at most 1: a sample draws one kind, or none"
                if round(total, 9) > 1  # 0.33 + 0.56 + 0.11 is a little more in floating point
                else None,
            ]
        )


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
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    mix: Mapping[StoragePath, float] = field(default_factory=dict)
    """More shards, by folder or URL, each with its share of the run's samples, such as 0.25; `shards` has the rest.
    Classical, real-world and paired shards of one scale may be mixed. Shares are multiples of 0.001."""

    @property
    def shares(self) -> dict[StoragePath, int]:
        """Share of each dataset in thousandths of the run's samples; `shards` comes first."""
        others = {folder: round(WHOLE * share) for folder, share in self.mix.items()}
        return {self.shards: WHOLE - sum(others.values())} | others

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
                *self._mix_faults(),
            ]
        )

    def _mix_faults(self) -> Iterator[str]:
        if self.shards in self.mix:
            yield f"mix names {self.shards}, which are data.shards; those have the share that the others leave"
        for folder, share in self.mix.items():
            if not 0 < share < 1 or abs(WHOLE * share - round(WHOLE * share)) > _ROUNDING:
                yield f"the share {share:g} of {folder} in mix must be above 0, below 1 and a multiple of {1 / WHOLE:g}"
        if sum(self.mix.values()) > 1 - 0.5 / WHOLE:
            yield f"the shares in mix sum to {sum(self.mix.values()):g} and leave nothing for data.shards={self.shards}"

    @property
    def why_not_cached(self) -> str | None:
        """Why cached semantics, which are of one dataset's own crops, do not fit the run's data; None if they do."""
        if self.augmentation.uses_partner:
            return (
                "data.augmentation.mixup_probability and cutmix_probability change HR, and cached semantics are those "
                "of HR as it is"
            )
        return "a cache is of one dataset, and data.mix names more" if self.mix else None

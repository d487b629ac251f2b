"""Sharding configuration: checked when built, never edited afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shards.errors import InputError
from shards.format.curation import MIN_SCORED_PX, CurationRules
from shards.format.expansion import expand
from shards.format.storage import StoragePath

MAX_DECODABLE_PIXELS = 178_956_970
"""Pillow itself refuses larger images; that limit is process-wide, so it is left unchanged."""

DEFAULT_RECIPE = "default"
GIVEN_LQ = "given"
"""In place of the recipe's name in paired shards, whose LQ images are given."""
_DEFAULT_RECIPES = {"classical": "bicubic-1", "realworld": "realesrgan-1", "paired": GIVEN_LQ}


@dataclass(frozen=True)
class ShardConfig:
    """One dataset of shards: where the photos are, how they are cut, where the tars go."""

    source: tuple[Path, ...]
    """Folders of photos (PNG, JPEG, WebP, TIFF, BMP, AVIF, JPEG 2000), searched with their sub-folders."""
    output: StoragePath
    """Folder or URL (s3://bucket/prefix) for the shards: new, empty, or written earlier with the same settings."""
    degradation: Literal["classical", "realworld", "paired"]
    """classical: bicubic LQ stored beside HR. realworld: HR and seeds only; training makes LQ by the recipe. paired: LQ
    of your own, from `lq_source`, stored beside HR."""
    scale: Literal[1, 2, 3, 4, 8]
    """How many times smaller the LQ image is; 1 restores images that are degraded, not smaller."""
    sub_image_px: int
    """Side of a sub-image in HR pixels (480 in the paper's data); a multiple of the scale."""
    stride_px: int
    """Distance between neighbouring sub-images in HR pixels (240 in the paper's data); a multiple of the scale."""
    variants: int
    """K, number of degradation seeds per sub-image."""
    seed: int
    """Dataset seed: keys the order of photos over shards and every degradation."""
    shard_size_mib: float
    """Target size of a tar in MiB; 128 to 256 suits a cluster."""
    max_reject_fraction: float = 0.1
    """Stop, before any shard is written, when more than this fraction of the photos is rejected."""
    max_pixels: int = 150_000_000
    """Photos with more pixels are rejected before decoding (decompression bombs)."""
    alpha: Literal["composite", "reject"] = "composite"
    """Photos with transparent pixels: composite them on white, or reject them."""
    spool: bool = True
    """Cut photos during the survey and spool the sub-images beside the shards (in `.spool`) until these are written, so
    that no photo is decoded twice. Turn it off where the output's storage is slower than the CPUs. Object stores have
    no spool."""
    exclude: tuple[Path, ...] = ()
    """Folders of evaluation images; a photo with exactly the pixels of one of them is rejected."""
    recipe: str = DEFAULT_RECIPE
    """Degradation recipe of realworld shards: realesrgan-1, realesrgan-light-1, bicubic-1, or your own TOML file,
    whose content the dataset stores. default: realesrgan-1, or bicubic-1 for classical shards, which take no other."""
    lq_source: tuple[Path, ...] = ()
    """Folders of LQ images for paired shards: one for each of `source`, in the same order, with files of the same names
    or with the scale after the name (ax4.png), `scale` times smaller. Whatever does not fit is rejected and counted."""
    keep_together: Literal["photo", "folder"] = "photo"
    """folder: photos of one folder are frames of one video. They come into one shard, however large, and are rejected
    together if one has the pixels of an evaluation image."""
    curation: CurationRules = field(default_factory=CurationRules)
    """Rules that remove photos and sub-images for what they look like. Nothing is removed by default."""

    @property
    def recipe_name(self) -> str:
        """Name or path of the recipe, the default resolved."""
        return _DEFAULT_RECIPES[self.degradation] if self.recipe == DEFAULT_RECIPE else self.recipe

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: Lists every fault.
        """
        object.__setattr__(self, "recipe", expand(self.recipe))
        faults = list(self._faults())
        if faults:
            raise InputError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        if not self.source:
            yield "source is empty; give at least one folder of photos"
        yield from self._size_faults()
        yield from self._degradation_faults()
        if self.curation.needs_scores and self.sub_image_px < MIN_SCORED_PX:
            yield (
                f"sub_image_px={self.sub_image_px} is too small for scores; rules of curation on scores need at least "
                f"{MIN_SCORED_PX}"
            )
        if self.variants < 1:
            yield f"variants={self.variants} must be at least 1"
        if not 0 <= self.seed < 2**63:
            yield f"seed={self.seed} must be from 0 to 2^63 - 1"
        if not 0 < self.shard_size_mib < float("inf"):
            yield f"shard_size_mib={self.shard_size_mib} must be above 0"
        if not 0 <= self.max_reject_fraction <= 1:
            yield f"max_reject_fraction={self.max_reject_fraction} must be from 0 to 1"
        if not 1 <= self.max_pixels <= MAX_DECODABLE_PIXELS:
            yield f"max_pixels={self.max_pixels} must be from 1 to {MAX_DECODABLE_PIXELS}"

    def _degradation_faults(self) -> Iterator[str]:
        is_paired = self.degradation == "paired"
        if self.degradation != "realworld" and self.recipe_name != _DEFAULT_RECIPES[self.degradation]:
            which = "given" if is_paired else "bicubic"
            yield (
                f"recipe={self.recipe!r} is not for {self.degradation} shards, whose LQ images are {which}; "
                'use degradation="realworld", or recipe="default"'
            )
        if self.scale == 1 and self.recipe_name == _DEFAULT_RECIPES["classical"]:
            yield (
                f"scale=1 with recipe {self.recipe_name} makes LQ images that are HR itself; use another recipe with "
                'degradation="realworld", or degradation="paired"'
            )
        if is_paired and len(self.lq_source) != len(self.source):
            yield (
                f"lq_source names {len(self.lq_source)} folder(s) for the {len(self.source)} of source; paired shards "
                "need one folder of LQ images for each folder of photos"
            )
        if self.lq_source and not is_paired:
            yield (
                f'lq_source is given, but degradation="{self.degradation}" makes its own LQ images; '
                'use degradation="paired", or leave lq_source empty'
            )

    def _size_faults(self) -> Iterator[str]:
        for name in ("sub_image_px", "stride_px"):
            value = getattr(self, name)
            if value < self.scale or value % self.scale:
                nearest = max(self.scale, round(value / self.scale) * self.scale)
                yield f"{name}={value} is not a multiple of scale={self.scale}; nearest is {nearest}"
        if self.stride_px > self.sub_image_px:
            yield (
                f"stride_px={self.stride_px} is above sub_image_px={self.sub_image_px} and would leave gaps; "
                f"use at most {self.sub_image_px}"
            )

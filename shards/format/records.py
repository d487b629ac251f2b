"""The record of a sample, `KEY.json`: where it comes from, the hash of its pixels, its degradation seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from shards.degradation.draws import variant_seed
from shards.format.documents import canonical_json


@dataclass(frozen=True)
class SampleRecord:
    """One sub-image."""

    source: str
    """`FOLDER/PATH` of its photo."""
    position_px: tuple[int, int]
    """Top and left in HR pixels of the photo."""
    size_px: tuple[int, int]
    """Height and width."""
    pixels_sha256: str
    recipe: str
    """Name of the degradation recipe."""
    scale: int
    seeds: tuple[str, ...]
    """One seed of 32 hex digits per recorded variant."""
    notes: tuple[str, ...] = ()
    """What was lost or assumed when its photo was decoded."""

    def to_bytes(self) -> bytes:
        """Return the member's bytes."""
        content = {
            "source": self.source,
            "position_px": list(self.position_px),
            "size_px": list(self.size_px),
            "pixels_sha256": self.pixels_sha256,
            "degradation": {"recipe": self.recipe, "scale": self.scale, "seeds": list(self.seeds)},
        }
        return canonical_json(content | {"notes": list(self.notes)} if self.notes else content)

    def seed(self, variant: int, dataset_seed: int) -> str:
        """Return the seed of a variant; variants beyond the recorded ones follow from the dataset's seed."""
        if variant < len(self.seeds):
            return self.seeds[variant]
        return variant_seed(dataset_seed, self.pixels_sha256, variant)


def parse_record(data: bytes) -> SampleRecord:
    """Parse a record.

    Raises:
        ValueError: The bytes are no record of a sample.
    """
    try:
        content = json.loads(data)
        degradation = content["degradation"]
        top_px, left_px = content["position_px"]
        height_px, width_px = content["size_px"]
        return SampleRecord(
            source=content["source"],
            position_px=(int(top_px), int(left_px)),
            size_px=(int(height_px), int(width_px)),
            pixels_sha256=content["pixels_sha256"],
            recipe=degradation["recipe"],
            scale=int(degradation["scale"]),
            seeds=tuple(degradation["seeds"]),
            notes=tuple(content.get("notes", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no record of a sample: {error}") from error

"""The record of a sample, `KEY.json`: where it comes from, the hash of its pixels, its degradation seeds."""

from __future__ import annotations

from dataclasses import dataclass

from shards.degradation.draws import variant_seed
from shards.format.documents import canonical_json
from shards.format.settings import ImageSettings, SidePx
from shards.schema import Count, Positive, SchemaError, Seed, Sha256, parse, parse_json


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

    def fault(self, settings: ImageSettings) -> str | None:
        """Return where the record contradicts its dataset, if anywhere."""
        if self.size_px != (settings.sub_image_px, settings.sub_image_px):
            return f"has size_px {list(self.size_px)}, the dataset sub_image_px={settings.sub_image_px}"
        if (self.scale, self.recipe) != (settings.scale, settings.recipe):
            return f"is of {self.recipe} x{self.scale}, the dataset of {settings.recipe} x{settings.scale}"
        return None

    def seed(self, variant: int, dataset_seed: int) -> str:
        """Return the seed of a variant; variants beyond the recorded ones follow from the dataset's seed."""
        if variant < len(self.seeds):
            return self.seeds[variant]
        return variant_seed(dataset_seed, self.pixels_sha256, variant)


def parse_record(data: bytes) -> SampleRecord:
    """Parse a record.

    Raises:
        SchemaError: The bytes are not a record of a sample.
    """
    try:
        record = parse(parse_json(data), _Document, "not a record of a sample")
    except UnicodeDecodeError as error:
        raise SchemaError(f"not a record of a sample: {error}") from error
    degradation = record.degradation
    return SampleRecord(
        record.source,
        record.position_px,
        record.size_px,
        record.pixels_sha256,
        degradation.recipe,
        degradation.scale,
        degradation.seeds,
        record.notes,
    )


@dataclass(frozen=True)
class _Degradation:
    recipe: str
    scale: Positive
    seeds: tuple[Seed, ...]


@dataclass(frozen=True)
class _Document:
    """The member's schema."""

    source: str
    position_px: tuple[Count, Count]
    size_px: tuple[SidePx, SidePx]
    pixels_sha256: Sha256
    degradation: _Degradation
    notes: tuple[str, ...] = ()

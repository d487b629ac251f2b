"""The image shards of a run: one dataset, or several in a mix. Knows no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pipeline.config.data import WHOLE, DataConfig
from pipeline.errors import ConfigError, InputError
from shards.format.documents import digest_of
from shards.format.manifest import Manifest, read_manifest
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class Dataset:
    """One folder of image shards.

    Attributes:
        folder: Folder or URL.
        manifest: Its manifest.
        thousandths: Its share of the run's samples.
    """

    folder: StoragePath
    manifest: Manifest
    thousandths: int = WHOLE

    @property
    def description(self) -> str:
        """Share, size and kind, for people and records."""
        images = self.manifest.images
        share = "" if self.thousandths == WHOLE else f"{self.thousandths / WHOLE:g} of the run: "
        return f"{share}{self.manifest.num_samples:,} samples in {self.folder}, {images.degradation} x{images.scale}"


@dataclass(frozen=True)
class Datasets:
    """All image shards of a run, `data.shards` first."""

    members: tuple[Dataset, ...]

    @property
    def digest(self) -> str:
        """Names the training data down to the last byte: the manifest's digest, or one over manifests and shares."""
        if len(self.members) == 1:
            return self.members[0].manifest.digest
        return digest_of({"mix": [[member.manifest.digest, member.thousandths] for member in self.members]})

    @property
    def num_samples(self) -> int:
        """Samples of all datasets."""
        return sum(member.manifest.num_samples for member in self.members)

    @property
    def lines(self) -> list[str]:
        """One line about each dataset."""
        return [member.description for member in self.members]


def open_datasets(data: DataConfig) -> Datasets:
    """Read the manifests of a run's image shards.

    Raises:
        InputError: There are no shards yet, or a folder holds features.
        ConfigError: One dataset is named twice, or two different recipes have one name.
    """
    members = tuple(Dataset(folder, image_manifest(folder), share) for folder, share in data.shares.items())
    for first, second in itertools.combinations(members, 2):
        if first.manifest.digest == second.manifest.digest:
            raise ConfigError(
                f"data.mix: {second.folder} holds the same shards as {first.folder}; name each dataset once, with its "
                "whole share"
            )
        ours, theirs = first.manifest.images, second.manifest.images
        if ours.recipe == theirs.recipe and ours.recipe_table != theirs.recipe_table:
            raise ConfigError(
                f"data.mix: {first.folder} and {second.folder} have different recipes of one name, {ours.recipe!r}; "
                "write one of them again, with its recipe renamed"
            )
    return Datasets(members)


def image_manifest(folder: StoragePath) -> Manifest:
    """Return the manifest of image shards.

    Raises:
        InputError: There are no shards yet, or the folder holds features.
    """
    manifest = read_manifest(folder)
    if manifest.kind != "images":
        raise InputError(f"{folder} holds {manifest.kind} shards, not images; give the output of jobs/shard.py")
    return manifest

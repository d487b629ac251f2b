"""The cache of semantic features: written once by `jobs/cache_features.py`, bound to its shards by hash.

A feature is the extractor's output for exactly the crop that training draws for (sample, variant): the crop comes
from the recorded seed, so cached and online features agree to float16. A cache made from other shards, another crop,
another extractor or other weights is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float16

from pipeline.models.semantics.names import present_extractor
from shards.errors import DamageError, InputError, ShardError
from shards.format.manifest import Manifest
from shards.format.settings import FeatureSettings
from shards.format.storage import StoragePath
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet


def feature_extension(variant: int) -> str:
    """Return the member extension of a variant: `KEY.000.f16`."""
    return f"{variant:03d}.f16"


def has_features(folder: StoragePath) -> bool:
    """Return whether a finished cache lies in the folder."""
    return (folder / "manifest.json").is_file()


def _in_present_names(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Return what a cache says of itself, with the extractor of an earlier version named as it is now.

    Headers then did not tell how the map came onto the grid, which has not changed.
    """
    present = present_extractor(found["extractor"])
    if present is None:
        return found
    extractor, preprocessing = present
    if expected["extractor"].startswith(f"{extractor},"):
        extractor = expected["extractor"]
    return found | {"extractor": extractor, "preprocessing": preprocessing}


class FeatureStore:
    """A finished cache, opened for reading by sample index.

    Attributes:
        shards: Its tars, in the order of the image shards, with the same samples in each.
        settings: Everything that the features depend on.

    Args:
        folder: Folder or URL written by jobs/cache_features.py.
        copies: Cache of remote shards; a local folder needs none.

    Raises:
        InputError: There is no cache, or a URL has no cache.
        ShardError: The manifest is damaged or of another kind.
    """

    def __init__(self, folder: StoragePath, copies: ShardCache | None = None) -> None:
        if not has_features(folder):
            raise InputError(
                f"no cached features in {folder}; run jobs/cache_features.py, or set --semantics.source online"
            )
        self._folder = folder
        self.shards = ShardSet.open(folder, copies)
        if self.shards.manifest.kind != "features":
            raise ShardError(f"{folder} holds {self.shards.manifest.kind} shards, not features")
        self.settings = self.shards.manifest.features

    def require(self, expected: FeatureSettings) -> None:
        """Refuse a cache of other shards, another crop, extractor or weights.

        Raises:
            ShardError: Lists every field that differs, with both values.
        """
        needed = expected.to_plain()
        found = _in_present_names(self.settings.to_plain(), needed)
        differing = [
            f"{name}: the cache has {found[name]!r}, the run needs {value!r}"
            for name, value in needed.items()
            if found[name] != value
        ]
        if differing:
            raise ShardError(
                f"the features in {self._folder} belong to something else:\n  "
                + "\n  ".join(differing)
                + "\n  Write them again with jobs/cache_features.py to another folder, or set --semantics.source online"
            )

    def require_samples_of(self, images: Manifest) -> None:
        """Refuse a cache of another number of samples than the image shards.

        Raises:
            ShardError: Names both numbers.
        """
        if self.shards.manifest.num_samples != images.num_samples:
            raise ShardError(
                f"the features in {self._folder} are of {self.shards.manifest.num_samples} samples, the shards have "
                f"{images.num_samples}; write them again with jobs/cache_features.py"
            )

    def read(self, index: int, key: str, variant: int) -> Float16[np.ndarray, "c grid grid"]:
        """Return one feature.

        Args:
            index: Index of the sample in the image shards; the cache has the same order.
            key: Key of the sample, checked.
            variant: From 0 to `num_variants` - 1.

        Returns:
            Little-endian.

        Raises:
            DamageError: The member is damaged.
            ShardError: It belongs to another sample, or is missing.
        """
        owner, payload = self.shards.member(index, feature_extension(variant))
        if owner != key:
            raise ShardError(f"{self._folder}: feature {index} belongs to {owner}, expected {key}")
        if len(payload) != self.settings.max_member_bytes:
            raise DamageError(f"{self._folder}: feature {index} has {len(payload)} bytes, not those of its shape")
        return np.frombuffer(payload, dtype="<f2").reshape(self.settings.shape)

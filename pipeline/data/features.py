"""The cache of semantic features: written once by `jobs/cache_features.py`, bound to its shards by hash.

A feature of the mode `crops` is the extractor's output for exactly the crop that training draws for (sample, variant):
the crop comes from the recorded seed, so cached and online features agree within the codec's bound. One of the mode
`map` is of the whole sub-image, and crops are cut out of it. A cache of another mode, made from other shards, another
crop, another extractor or other weights is refused.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.models.semantics.names import present_extractor
from shards.degradation.crops import Crop
from shards.errors import DamageError, InputError, ShardError
from shards.format.codecs import FP16
from shards.format.feature_coding import open_coding
from shards.format.manifest import Manifest, read_manifest
from shards.format.settings import FeatureSettings
from shards.format.sidecars import ShardEntry, read_sidecar
from shards.format.storage import StoragePath, child, size_bytes
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet

FEATURES = "features"
"""Names of tars begin with it."""
_NUM_READERS = 16
_RERUN = "write them again with jobs/cache_features.py"


def has_features(folder: StoragePath) -> bool:
    """Return whether a finished cache lies in the folder."""
    return (folder / "manifest.json").is_file()


def codec_of(folder: StoragePath) -> str | None:
    """Return the codec of the cache in a folder, finished or begun; None where there is none yet.

    Raises:
        ShardError: A manifest is damaged, or of something else than features.
    """
    if has_features(folder):
        return read_manifest(folder).features.codec
    for path in sorted(folder.glob(f"{FEATURES}-*.json"), key=str):
        try:
            return str(read_sidecar(path).header.get("codec", FP16))
        except ShardError:
            continue  # it will be written again
    return None


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
        cell_px: Offsets of the crops that can be read are multiples of it.

    Args:
        folder: Folder or URL written by jobs/cache_features.py.
        copies: Cache of remote shards; a local folder needs none.

    Raises:
        InputError: There is no cache, or a URL has no cache.
        ShardError: The manifest is damaged or of another kind, or what the codec learned is.
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
        self._coding = open_coding(folder, self.settings)
        self._extensions = self.settings.extensions
        self._mode = FEATURE_MODES[self.settings.mode]
        self.cell_px = self._mode.cell_px

    def require(self, expected: FeatureSettings) -> None:
        """Refuse a cache of other shards, another crop, extractor or weights.

        Raises:
            ShardError: Lists every field that differs, with both values.
        """
        # Any codec will do: the header says which it is.
        needed = expected.coded_by(self.settings.codec).facts | {"codec_state_sha256": self.settings.codec_state_sha256}
        found = _in_present_names(self.settings.facts, needed)
        differing = [
            f"{name}: the cache has {found[name]!r}, the run needs {value!r}"
            for name, value in needed.items()
            if found[name] != value
        ]
        if differing:
            raise ShardError(
                f"the features in {self._folder} belong to something else:\n  "
                + "\n  ".join(differing)
                + "\n  Write them again with jobs/cache_features.py to another folder, or set --semantics.source: "
                "cached reads the mode crops, mapped the mode map, online none"
            )

    def require_shards_of(self, images: Manifest) -> None:
        """Refuse a cache that is not of every image shard, with as many samples in each.

        Raises:
            ShardError: Names the numbers, or the first shard that differs.
        """
        entries, needed = self.shards.manifest.shards, images.shards
        if len(entries) != len(needed):
            raise ShardError(
                f"the features in {self._folder} are of {len(entries)} shards, the images have {len(needed)}; {_RERUN}"
            )
        for entry, image_shard in zip(entries, needed, strict=True):
            if entry.num_samples != image_shard.num_samples:
                raise ShardError(
                    f"{self._folder / entry.tar_name} has the features of {entry.num_samples} samples, "
                    f"{image_shard.name} has {image_shard.num_samples}; {_RERUN}"
                )

    def require_files(self) -> None:
        """Refuse a cache with a missing or shortened tar, or a missing sidecar, before anything is read from it.

        Raises:
            ShardError: Says how many, and names the first.
        """
        with ThreadPoolExecutor(_NUM_READERS) as pool:  # an object store takes tens of milliseconds for each
            faults = [fault for fault in pool.map(self._file_fault, self.shards.manifest.shards) if fault]
        if faults:
            raise ShardError(
                f"the features of {len(faults)} of {len(self.shards.manifest.shards)} shards are not there: "
                f"{faults[0]}; restore it, or rerun jobs/cache_features.py, which writes what is missing"
            )

    def _file_fault(self, entry: ShardEntry) -> str | None:
        """Return what is wrong with the files of a shard, by their sizes alone."""
        for name in (entry.tar_name, entry.sidecar_name):
            path = child(self._folder, name)
            try:
                found = size_bytes(path)
            except OSError as error:
                return f"cannot read {path}: {error.strerror or error}"
            if name == entry.tar_name and found != entry.size_bytes:
                return f"{path} has {found} bytes, not {entry.size_bytes}"
        return None

    def variant(self, epoch: int) -> int:
        """Return the variant of every sample in an epoch."""
        return self._mode.variant(epoch, self.settings.num_variants)

    def read(self, index: int, key: str, variant: int, crop: Crop) -> Float[np.ndarray, "c grid grid"]:
        """Return the features of a crop.

        Args:
            index: Index of the sample in the image shards; the cache has the same order.
            key: Key of the sample, checked.
            variant: From `variant`.
            crop: Drawn for it, on the grid of `cell_px`.

        Returns:
            Little-endian float16, or float32 where the codec computes the values.

        Raises:
            DamageError: The member is damaged.
            ShardError: It belongs to another sample, or is missing.
        """
        number = self._mode.number(variant)
        if number >= len(self._extensions):
            raise ShardError(f"{self._folder} has {len(self._extensions)} variant(s) of a sample, not number {number}")
        owner, payload = self.shards.member(index, self._extensions[number])
        if owner != key:
            raise ShardError(f"{self._folder}: feature {index} belongs to {owner}, expected {key}")
        try:
            return self._mode.cut(self._coding.decode(payload), crop)
        except ValueError as error:
            raise DamageError(f"{self._folder}: feature {index} {error}") from error

"""The cache of semantic features: written once by `jobs/cache_features.py`, bound to its shards by hash.

A feature is what the extractor gives for exactly the crop that training cuts for (sample, variant): the crop comes
from the recorded seed, so cached and online features agree to float16. A cache made from other shards, another crop,
another extractor or other weights is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shards.errors import InputError, ShardError
from shards.format.manifest import Manifest, read_manifest
from shards.format.storage import StoragePath
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet

DTYPE = "float16"
PREPROCESSING = "rgb-01-clip-normalised-1"


@dataclass(frozen=True)
class FeatureIdentity:
    """Everything that the values of a cache depend on.

    Attributes:
        image_manifest: Digest of the manifest of the image shards.
        crop_px: Side of the HR crop.
        num_variants: Variants of each sample; training takes variant `epoch % num_variants`.
        extractor: Architecture and layer, from `extractor_name`.
        weights_sha256: Hash of the extractor's weights.
        shape: (c, h, w) of one feature.
    """

    image_manifest: str
    crop_px: int
    num_variants: int
    extractor: str
    weights_sha256: str
    shape: tuple[int, int, int]

    def to_header(self) -> dict[str, Any]:
        """Return what the manifest and every feature tar carry."""
        return asdict(self) | {
            "shape": list(self.shape),
            "dtype": DTYPE,
            "quantisation": "none",
            "preprocessing": PREPROCESSING,
        }


def feature_extension(variant: int) -> str:
    """Return the member extension of a variant: `KEY.000.f16`."""
    return f"{variant:03d}.f16"


def extractor_name(architecture: str, layer: int) -> str:
    """Return how a cache names its extractor; the weights are named by their hash, wherever their file lies."""
    return f"{architecture} layer {layer}"


def has_features(folder: StoragePath) -> bool:
    """Return whether a finished cache lies in the folder."""
    return (folder / "manifest.json").is_file()


class FeatureStore:
    """A finished cache, opened for reading by sample index.

    Attributes:
        shards: Its tars, in the order of the image shards, with the same samples in each.

    Args:
        folder: Folder or URL written by jobs/cache_features.py.
        copies: Where copies of a URL's shards are kept; a local folder needs none.

    Raises:
        InputError: There is no cache, or a URL comes without a place for copies.
        ShardError: The manifest is damaged or of another kind.
    """

    def __init__(self, folder: StoragePath, copies: ShardCache | None = None) -> None:
        if not has_features(folder):
            raise InputError(
                f"no cached features in {folder}; run jobs/cache_features.py, or set --semantics.source online"
            )
        self._folder = folder
        self.shards = ShardSet.open(folder, copies)
        self._header = self.shards.manifest.config
        if self.shards.manifest.kind != "features":
            raise ShardError(f"{folder} holds {self.shards.manifest.kind} shards, not features")

    @property
    def num_variants(self) -> int:
        """Variants of each sample."""
        return int(self._header["num_variants"])

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights that made the features."""
        return str(self._header["weights_sha256"])

    def require(self, expected: FeatureIdentity) -> None:
        """Refuse a cache that belongs to something else.

        Raises:
            ShardError: Lists every field that differs, with both values.
        """
        wanted = expected.to_header()
        differing = [
            f"{name}: the cache has {self._header.get(name)!r}, the run needs {value!r}"
            for name, value in wanted.items()
            if self._header.get(name) != value
        ]
        if differing:
            raise ShardError(
                f"the features in {self._folder} belong to something else:\n  "
                + "\n  ".join(differing)
                + "\n  Write them again with jobs/cache_features.py to another folder, or set --semantics.source online"
            )

    def read(self, index: int, key: str, variant: int) -> np.ndarray:
        """Return one feature.

        Args:
            index: Index of the sample in the image shards; the cache has the same order.
            key: Key of the sample, checked.
            variant: From 0 to `num_variants` - 1.

        Returns:
            (c, h, w) float16.

        Raises:
            DamageError: The member is damaged.
            ShardError: It belongs to another sample, or is missing.
        """
        owner, payload = self.shards.member(index, feature_extension(variant))
        if owner != key:
            raise ShardError(f"{self._folder}: feature {index} belongs to {owner}, expected {key}")
        return np.frombuffer(payload, dtype="<f2").reshape(self._header["shape"])


def identity(
    images: Manifest,
    *,
    crop_px: int,
    num_variants: int,
    extractor: str,
    weights_sha256: str,
    channels: int,
    stride_px: int,
) -> FeatureIdentity:
    """Return the identity of the features of some image shards."""
    side = crop_px // stride_px
    return FeatureIdentity(images.digest, crop_px, num_variants, extractor, weights_sha256, (channels, side, side))


def image_manifest(folder: StoragePath) -> Manifest:
    """Return the manifest of image shards.

    Raises:
        InputError: There are no shards yet, or the folder holds features.
    """
    manifest = read_manifest(folder)
    if manifest.kind != "images":
        raise InputError(f"{folder} holds {manifest.kind} shards, not images; give the output of jobs/shard.py")
    return manifest

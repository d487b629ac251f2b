"""The manifest: written last and whole, read first. A folder without one holds no dataset yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shards.errors import ShardError, shown
from shards.format.documents import FORMAT_VERSION, digest_of, parse_sealed, read_sealed, seal
from shards.format.files import write_atomically
from shards.format.rejects import Reject
from shards.format.settings import FeatureSettings, ImageSettings
from shards.format.sidecars import HEADER_BYTES, ShardEntry
from shards.format.storage import StoragePath
from shards.schema import Count, Sha256

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Generation:
    """Photos that were added to a dataset together, with their shards."""

    fingerprint: Sha256
    """Of its plan."""
    num_shards: Count
    num_samples: Count


@dataclass(frozen=True)
class Manifest:
    """A finished dataset: images, or features of images."""

    fingerprint: str
    """Of the last generation's plan; the sidecars of its shards carry it too."""
    config: ImageSettings | FeatureSettings
    """Settings that decided the bytes."""
    shards: tuple[ShardEntry, ...]
    rejects: tuple[Reject, ...] = ()
    generations: tuple[Generation, ...] = ()
    """Oldest first; their shards follow each other in `shards`. Features have none."""
    photo_notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of photos by what was lost or assumed in decoding them."""
    dropped_sub_images: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Number of sub-images of the photos in use that rules of curation drop, by reason."""

    @property
    def kind(self) -> Literal["images", "features"]:
        """What the samples are."""
        return "images" if isinstance(self.config, ImageSettings) else "features"

    @property
    def images(self) -> ImageSettings:
        """Settings of image shards.

        Raises:
            ShardError: These are not image shards.
        """
        if isinstance(self.config, ImageSettings):
            return self.config
        raise ShardError("the manifest describes features, not images; give the output of jobs/shard.py")

    @property
    def features(self) -> FeatureSettings:
        """Settings of cached features.

        Raises:
            ShardError: These are not features.
        """
        if isinstance(self.config, FeatureSettings):
            return self.config
        raise ShardError("the manifest describes images, not features; give the output of jobs/cache_features.py")

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tars."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def content(self) -> dict[str, Any]:
        """Plain data of the file."""
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "config": self.config.to_plain(),
            "num_samples": self.num_samples,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
            "rejects": [dataclasses.asdict(reject) for reject in self.rejects],
            "generations": [dataclasses.asdict(generation) for generation in self.generations],
            **({"photo_notes": dict(self.photo_notes)} if self.photo_notes else {}),
            **({"dropped_sub_images": dict(self.dropped_sub_images)} if self.dropped_sub_images else {}),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest: names a dataset down to its last byte."""
        return digest_of({**self.content, "format_version": FORMAT_VERSION})


def plan_file(generation: int) -> str:
    """Return the name of a generation's plan."""
    return f"plan-{generation:03d}.json" if generation else "plan.json"


def kept_manifest_file(generation: int) -> str:
    """Return the file name of an older generation's manifest."""
    return f"manifest-{generation:03d}.json"


def write_manifest(folder: StoragePath, manifest: Manifest, *, kept: bool = False) -> None:
    """Publish a dataset; call it once every shard exists.

    Args:
        folder: Output.
        manifest: Describes every shard.
        kept: It is an older generation's, stored beside the current one.
    """
    name = kept_manifest_file(len(manifest.generations) - 1) if kept else MANIFEST_FILE
    write_atomically(folder / name, seal(manifest.content))


def read_manifest(folder: StoragePath, kept_generation: int | None = None) -> Manifest:
    """Read the manifest of a folder of shards and check every byte of it.

    Args:
        folder: Folder of shards.
        kept_generation: Read the manifest of this older generation; None for the current one.

    Raises:
        ShardError: The folder or manifest is missing, damaged, or of another format version.
    """
    path = folder / (MANIFEST_FILE if kept_generation is None else kept_manifest_file(kept_generation))
    try:
        if kept_generation is None and not path.is_file():
            raise ShardError(_explain_missing(folder))
    except OSError as error:
        raise ShardError(
            f"cannot read {path}: {error.strerror or error}; check the address, that the store is reachable, and its "
            "credentials (AWS_* or ~/.aws for s3://)"
        ) from error
    content = read_sealed(path)
    schema = _SCHEMAS.get(str(content.get("kind")))
    if schema is None:
        raise ShardError(
            f"{path} is not a manifest of shards: its kind is {shown(content.get('kind'))}, not images or features; "
            "give the output of jobs/shard.py or jobs/cache_features.py"
        )
    document = parse_sealed(content, schema, path)
    manifest = Manifest(
        document.fingerprint,
        document.config,
        document.shards,
        document.rejects,
        document.generations,
        document.photo_notes,
        document.dropped_sub_images,
    )
    faults = [*_count_faults(manifest, document.num_samples), *_shard_faults(manifest)]
    if faults:
        raise ShardError(f"{path} contradicts itself: {'; '.join(faults[:3])}; restore it, or write the shards again")
    return manifest


@dataclass(frozen=True)
class _Document:
    """The file's schema."""

    kind: Literal["images", "features"]
    fingerprint: Sha256
    config: ImageSettings | FeatureSettings
    num_samples: Count
    shards: tuple[ShardEntry, ...]
    rejects: tuple[Reject, ...]
    generations: tuple[Generation, ...]
    photo_notes: Mapping[str, Count] = dataclasses.field(default_factory=dict)
    dropped_sub_images: Mapping[str, Count] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class _ImageDocument(_Document):
    config: ImageSettings


@dataclass(frozen=True)
class _FeatureDocument(_Document):
    config: FeatureSettings


_SCHEMAS: dict[str, type[_Document]] = {"images": _ImageDocument, "features": _FeatureDocument}


def _count_faults(manifest: Manifest, num_samples: int) -> Iterator[str]:
    if manifest.num_samples != num_samples:
        yield f"it counts {num_samples} samples, its shards {manifest.num_samples}"
    generations = manifest.generations
    if generations and sum(generation.num_shards for generation in generations) != len(manifest.shards):
        yield "its generations have other shards"
    if isinstance(manifest.config, ImageSettings) and manifest.config.sub_image_px % manifest.config.scale:
        yield f"sub_image_px={manifest.config.sub_image_px} is not a multiple of scale={manifest.config.scale}"


def _shard_faults(manifest: Manifest) -> Iterator[str]:
    names: set[str] = set()
    for entry in manifest.shards:
        if entry.name in names:
            yield f"{entry.name} is listed twice"
        names.add(entry.name)
        if not 0 < entry.num_samples * HEADER_BYTES < entry.size_bytes:
            yield f"{entry.name} cannot hold {entry.num_samples} samples in {entry.size_bytes} bytes"


def _explain_missing(folder: StoragePath) -> str:
    if not folder.is_dir():
        got = f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}"
    elif any(folder.glob("*.tar")):
        got = f"{folder} holds tars but no {MANIFEST_FILE}: the job that wrote them did not finish"
    else:
        got = f"{folder} holds no {MANIFEST_FILE}"
    return f"no shards here yet: {got}; run `python jobs/shard.py --output {folder}`, or give another folder"


def find_generation(folder: StoragePath, manifest: Manifest, digest: str) -> int | None:
    """Find the older generation whose manifest has a digest.

    Args:
        folder: Folder of shards.
        manifest: Its current manifest.
        digest: Of the manifest sought.

    Returns:
        Its number, or None if it is of no older generation, or of a damaged one.
    """
    for number in range(len(manifest.generations) - 1):
        try:
            if read_manifest(folder, number).digest == digest:
                return number
        except ShardError:
            continue
    return None

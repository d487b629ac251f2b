"""The manifest: written last and whole, read first. A folder without one holds no dataset yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shards.documents import FORMAT_VERSION, digest_of, read_sealed, seal
from shards.errors import ShardError
from shards.files import write_atomically
from shards.sidecars import ShardEntry
from shards.survey import Reject

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """A finished dataset: images, or features of images."""

    kind: Literal["images", "features"]
    fingerprint: str
    """Of the plan; every shard's sidecar carries it too."""
    config: Mapping[str, Any]
    """Settings that decided the bytes; plain JSON data."""
    shards: tuple[ShardEntry, ...]
    rejects: tuple[Reject, ...] = ()

    @property
    def format_version(self) -> int:
        """Version of the format that this program reads and writes."""
        return FORMAT_VERSION

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
            "config": dict(self.config),
            "num_samples": self.num_samples,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
            "rejects": [dataclasses.asdict(reject) for reject in self.rejects],
        }

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest: names a dataset down to its last byte."""
        return digest_of({**self.content, "format_version": FORMAT_VERSION})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish a dataset; call it when every shard is there."""
    write_atomically(folder / MANIFEST_FILE, seal(manifest.content))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of shards and check every byte of it.

    Raises:
        ShardError: The folder or manifest is missing, damaged, or of another format version.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ShardError(_explain_missing(folder))
    content = read_sealed(path)
    try:
        return Manifest(
            kind=content["kind"],
            fingerprint=content["fingerprint"],
            config=content["config"],
            shards=tuple(ShardEntry(**shard) for shard in content["shards"]),
            rejects=tuple(Reject(**reject) for reject in content["rejects"]),
        )
    except (KeyError, TypeError) as error:
        raise ShardError(f"{path} is no manifest of shards ({error}); write the shards again") from error


def _explain_missing(folder: Path) -> str:
    if not folder.is_dir():
        got = f"{folder} {'is no folder' if folder.exists() else 'does not exist'}"
    elif any(folder.glob("*.tar")):
        got = f"{folder} holds tars but no {MANIFEST_FILE}: the job that wrote them did not finish"
    else:
        got = f"{folder} holds no {MANIFEST_FILE}"
    return f"no shards here yet: {got}; run `python jobs/shard.py --output {folder}`, or give another folder"

"""A sidecar describes one tar: its hash, and the offset of every member. Its existence marks the tar as complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

from shards.errors import ShardError
from shards.format.documents import parse_sealed, read_sealed, seal
from shards.format.storage import StoragePath, size_bytes
from shards.schema import Count, FileStem, Range, Sha256

# Done-markers are read in parallel: an object store takes tens of milliseconds per request.
_NUM_READERS = 16

HEADER_BYTES = 512
"""Each member of a tar has a header of this size before its content, which is padded to a multiple of it."""
RECORD_BYTES = 20 * HEADER_BYTES
"""A tar's size is a multiple of this."""


@dataclass(frozen=True)
class ShardEntry:
    """A finished shard, as the manifest lists it."""

    name: FileStem
    """Without suffix: `images-000000`."""
    sha256: Sha256
    """Of the tar."""
    size_bytes: Count
    """Of the tar."""
    num_samples: Count

    @property
    def tar_name(self) -> str:
        """File name of the tar."""
        return f"{self.name}.tar"

    @property
    def sidecar_name(self) -> str:
        """File name of the sidecar."""
        return f"{self.name}.json"


class Member(NamedTuple):
    """One file in a tar."""

    name: str
    """`KEY.EXTENSION`; the key ends at the first dot."""
    offset: Count
    """Of its first byte in the tar."""
    size_bytes: Count
    crc32: Annotated[int, Range(0, 2**32 - 1)]

    @property
    def key(self) -> str:
        """Name of the sample."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        """Part of the sample, such as `png` or `lq.png`."""
        return self.name.partition(".")[2]


@dataclass(frozen=True)
class Sidecar:
    """The index of one tar."""

    header: Mapping[str, Any]
    """What the shard was made from, such as its plan's fingerprint."""
    entry: ShardEntry
    members: tuple[Member, ...]
    """In the order of the tar; the members of a sample are adjacent."""

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        members = [member._asdict() for member in self.members]
        return seal({"header": dict(self.header), "shard": asdict(self.entry), "members": members})

    def samples(self) -> list[tuple[Member, ...]]:
        """Return the members grouped by sample, in order."""
        groups: list[list[Member]] = []
        for member in self.members:
            if groups and groups[-1][0].key == member.key:
                groups[-1].append(member)
            else:
                groups.append([member])
        return [tuple(group) for group in groups]


def read_sidecar(path: StoragePath) -> Sidecar:
    """Read a sidecar and check every byte of it.

    Raises:
        ShardError: It is missing, damaged, or no sidecar.
    """
    document = parse_sealed(read_sealed(path), _Document, path)
    sidecar = Sidecar(document.header, document.shard, document.members)
    fault = _fault(sidecar)
    if fault:
        raise ShardError(f"{path} {fault}; delete it and write the shards again")
    return sidecar


@dataclass(frozen=True)
class _Document:
    """The file's schema."""

    header: Mapping[str, Any]
    shard: ShardEntry
    members: tuple[Member, ...]


def _fault(sidecar: Sidecar) -> str | None:
    """Return where a sidecar contradicts itself; its members lie without a gap, as `shards.format.tars` writes them."""
    end = 0
    for member in sidecar.members:
        fault = name_fault(member.name)
        if fault:
            return f"names a member {fault}"
        start = _padded(end, HEADER_BYTES) + HEADER_BYTES
        if member.offset != start:
            return f"puts {member.name} at byte {member.offset} instead of {start}"
        end = start + member.size_bytes
    size_bytes = _padded(_padded(end, HEADER_BYTES) + 2 * HEADER_BYTES, RECORD_BYTES)
    if size_bytes != sidecar.entry.size_bytes:
        return f"lists the members of a tar of {size_bytes} bytes, not {sidecar.entry.size_bytes}"
    num_samples = len(sidecar.samples())
    if num_samples != sidecar.entry.num_samples:
        return f"lists {num_samples} samples but counts {sidecar.entry.num_samples}"
    return None


def _padded(size_bytes: int, multiple: int) -> int:
    return size_bytes + -size_bytes % multiple


def find_finished(folder: StoragePath, name: str, header: Mapping[str, Any]) -> ShardEntry | None:
    """Return the entry of a shard that is finished, or None if it must be written.

    A shard counts as finished when its sidecar is whole and carries exactly this header, and its tar has the
    size in the sidecar. `jobs/verify.py` hashes the bytes as well.

    Args:
        folder: Output folder.
        name: Shard without suffix.
        header: What the writer would put into the sidecar.

    Returns:
        The entry, or None.
    """
    try:
        sidecar = read_sidecar(folder / f"{name}.json")
        tar_bytes = size_bytes(folder / f"{name}.tar")
    except (ShardError, OSError):
        return None
    same = dict(sidecar.header) == dict(header) and sidecar.entry.name == name
    return sidecar.entry if same and tar_bytes == sidecar.entry.size_bytes else None


def find_all_finished(folder: StoragePath, headers: Mapping[str, Mapping[str, Any]]) -> dict[str, ShardEntry]:
    """Return the entries, by name, of those shards that are finished; see `find_finished`.

    Args:
        folder: Output folder.
        headers: What the writer would put into each sidecar, by the shard's name.
    """
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = pool.map(lambda shard: find_finished(folder, *shard), headers.items())
        return {entry.name: entry for entry in found if entry is not None}


def name_fault(name: str) -> str | None:
    """Return what is wrong with a member's name, if anything.

    Names are `KEY.EXTENSION` in printable ASCII of at most 100 characters, without folders: what every tar
    reader takes, and what `webdataset` groups by key. It reserves extensions that begin with `_`.
    """
    key, dot, extension = name.partition(".")
    if not (key and dot and extension) or len(name) > 100 or "/" in name or extension[0] == "_":
        return f"{name!r} is not KEY.EXTENSION of at most 100 characters"
    if not (name.isascii() and name.isprintable()):
        return f"{name!r} is not printable ASCII"
    return None


def order_fault(names: Sequence[str]) -> str | None:
    """Return which member of a tar is separated from its sample, or occurs twice, if any."""
    finished: set[str] = set()
    seen: set[str] = set()
    current = ""
    for name in names:
        key = name.partition(".")[0]
        if key != current:
            finished.add(current)
            current = key
        if key in finished or name in seen:
            return f"{name!r} is separated from its sample, or occurs twice"
        seen.add(name)
    return None

"""Publishes a shard: the same bytes from any writer, and never a partial shard under its final name.

The tar goes to a temporary name while it is hashed, is synchronised and renamed; then its sidecar, the
done-marker, follows in the same way. A tar without a sidecar is not finished and will be written again.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from shards.format.files import open_atomic, write_atomically
from shards.format.sidecars import Member, ShardEntry, Sidecar, find_finished, name_fault, order_fault
from shards.format.storage import StoragePath


class _AlreadyThereError(Exception):
    """Another worker has finished the same shard; ours is dropped."""

    def __init__(self, entry: ShardEntry) -> None:
        super().__init__(entry.name)
        self.entry = entry


class _HashingStream:
    """Forwards bytes to a file and tracks their hash and count."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Write all of the bytes."""
        self.digest.update(data)
        self.size_bytes += len(data)
        self._stream.write(data)


def publish_shard(
    folder: StoragePath, name: str, members: Iterable[tuple[str, bytes]], header: Mapping[str, Any]
) -> ShardEntry:
    """Write a tar and its sidecar.

    Args:
        folder: Existing output folder.
        name: Shard without suffix, such as `images-000007`. Other files under this name are replaced; the same
            shard, finished by another worker meanwhile, is left alone.
        members: `(KEY.EXTENSION, bytes)` in the order of the tar; members of a sample adjacent, keys without
            dots. Taken one by one, so a generator needs no more memory than one member.
        header: Plain JSON data about the whole shard, for the sidecar.

    Returns:
        The entry for the manifest.

    Raises:
        ValueError: A member's name breaks `shards.format.sidecars.name_fault` or `order_fault`. Nothing is left behind.
        OSError: Storage failed. Nothing is left under a final name.
    """
    try:
        with open_atomic(folder / f"{name}.tar") as file:
            stream = _HashingStream(file)
            index = _write_members(stream, members)
            num_samples = len({member.key for member in index})
            entry = ShardEntry(name, stream.digest.hexdigest(), stream.size_bytes, num_samples)
            _make_way(folder, entry, header)
    except _AlreadyThereError as there:
        return there.entry
    write_atomically(folder / entry.sidecar_name, Sidecar(header, entry, index).to_bytes())
    return entry


def _make_way(folder: StoragePath, entry: ShardEntry, header: Mapping[str, Any]) -> None:
    # Two workers may write the same shard at once; neither may undo what the other has finished.
    if find_finished(folder, entry.name, header) == entry:
        raise _AlreadyThereError(entry)
    # A crash before the new done-marker must not leave an old one beside another tar.
    (folder / entry.sidecar_name).unlink(missing_ok=True)


def _write_members(stream: _HashingStream, members: Iterable[tuple[str, bytes]]) -> tuple[Member, ...]:
    # Headers are the standard library's; contents go to hash and file whole: its `addfile` passes 16 KiB at a time.
    # Not webdataset's writer: its import takes a worker 500 MiB and 1.4 s.
    index: list[Member] = []
    for name, data in members:
        fault = name_fault(name)
        if fault:
            raise ValueError(f"member {fault}")
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        index.append(Member(name, stream.size_bytes, len(data), zlib.crc32(data)))
        stream.write(data)
        stream.write(_zeros_up_to(tarfile.BLOCKSIZE, stream.size_bytes))
    fault = order_fault([member.name for member in index])
    if fault:
        raise ValueError(f"member {fault}")
    stream.write(bytes(2 * tarfile.BLOCKSIZE))
    stream.write(_zeros_up_to(tarfile.RECORDSIZE, stream.size_bytes))
    return tuple(index)


def _zeros_up_to(multiple: int, size_bytes: int) -> bytes:
    return bytes(-size_bytes % multiple)

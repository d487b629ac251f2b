"""Publishes a shard: the same bytes whoever writes it, and never half a shard under its final name.

The tar goes to a temporary name while it is hashed, is synchronised and renamed; then its sidecar, the
done-marker, follows in the same way. A tar without a sidecar is not finished and will be written again.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from shards.errors import ShardError
from shards.files import open_atomic, write_atomically
from shards.sidecars import Member, ShardEntry, Sidecar, name_fault, order_fault, read_sidecar

_BLOCK_BYTES = 512


class _HashingStream:
    """Passes bytes on to a file, and knows their hash and count."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)


def publish_shard(
    folder: Path, name: str, members: Iterable[tuple[str, bytes]], header: Mapping[str, Any]
) -> ShardEntry:
    """Write a tar and its sidecar.

    Args:
        folder: Existing output folder.
        name: Shard without suffix, such as `images-000007`. What is there under this name is replaced.
        members: `(KEY.EXTENSION, bytes)` in the order of the tar; members of a sample adjacent, keys without
            dots. Taken one by one, so a generator needs no more memory than one member.
        header: Plain JSON data about the whole shard, for the sidecar.

    Returns:
        The entry for the manifest.

    Raises:
        ValueError: A member's name breaks `shards.sidecars.name_fault` or `order_fault`. Nothing is left behind.
        OSError: Storage failed. Nothing is left behind under a final name.
    """
    with open_atomic(folder / f"{name}.tar") as file:
        stream = _HashingStream(file)
        index = _write_members(stream, members)
        num_samples = len({member.key for member in index})
        entry = ShardEntry(name, stream.digest.hexdigest(), stream.size_bytes, num_samples)
        _drop_other_sidecar(folder, entry)
    write_atomically(folder / entry.sidecar_name, Sidecar(header, entry, index).to_bytes())
    return entry


def _drop_other_sidecar(folder: Path, entry: ShardEntry) -> None:
    # A crash before the new done-marker must not leave an old one beside another tar. One of this very tar stays:
    # two workers may write the same shard at once, and neither may undo what the other finished.
    path = folder / entry.sidecar_name
    try:
        is_of_this_tar = read_sidecar(path).entry == entry
    except ShardError:
        is_of_this_tar = False
    if not is_of_this_tar:
        path.unlink(missing_ok=True)


def _write_members(stream: _HashingStream, members: Iterable[tuple[str, bytes]]) -> tuple[Member, ...]:
    # Imported here: webdataset imports torch, which the readers of this package need not pay for.
    from webdataset.writer import TarWriter

    index: list[Member] = []
    offset = 0
    # An integer time and short ASCII names keep every header one plain USTAR block.
    writer = TarWriter(cast(Any, stream), user="", group="", mode=0o444, mtime=0, encoder=False)
    try:
        for name, data in members:
            fault = name_fault(name)
            if fault:
                raise ValueError(f"member {fault}")
            key, _, extension = name.partition(".")
            writer.write({"__key__": key, extension: data})
            offset += _BLOCK_BYTES
            index.append(Member(name, offset, len(data), zlib.crc32(data)))
            offset += -(-len(data) // _BLOCK_BYTES) * _BLOCK_BYTES
    finally:
        writer.close()
    fault = order_fault([member.name for member in index])
    if fault:
        raise ValueError(f"member {fault}")
    return tuple(index)

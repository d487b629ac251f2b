"""Reads any sample of a dataset by its number, without reading through a tar.

A `ShardSet` opens the manifest, loads sidecars on first use, and reads a sample with one positioned read. Every
member's CRC is checked. It may be pickled, forked and used from threads: only the files are shared. Shards in an object
store are read through a `ShardCache`.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from isal import isal_zlib

from shards.errors import DamageError, InputError, ShardError
from shards.format.manifest import Manifest, read_manifest
from shards.format.records import SampleRecord, parse_record
from shards.format.remote import RemotePath
from shards.format.sidecars import Member, read_sidecar
from shards.format.storage import StoragePath, child, open_regular
from shards.read.cache import ShardCache
from shards.schema import SchemaError

T = TypeVar("T")

# An index takes about 200 bytes per sample. DF2K at 480 px (140,000 samples, 500 shards) fits whole in 30 MB. Larger
# datasets re-read sidecars, unless data.window_shards limits the shards in use.
_MAX_INDEXED_SAMPLES = 500_000
_MAX_OPEN_TARS = 64
_MAX_EVICTIONS = 5


@dataclass(frozen=True)
class Sample:
    """All members of one sample."""

    key: str
    members: dict[str, bytes]
    """File contents by extension: `png`, `lq.png`, `json`."""

    @property
    def record(self) -> SampleRecord:
        """The sample's `json` member, parsed.

        Raises:
            ShardError: It has none, or it is not a record.
        """
        try:
            return parse_record(self.part("json"))
        except SchemaError as error:
            raise ShardError(f"sample {self.key} has no usable record ({error}); write the shards again") from error

    def part(self, extension: str) -> bytes:
        """Return the content of one member.

        Raises:
            ShardError: The sample has no such member.
        """
        if extension not in self.members:
            raise ShardError(
                f"sample {self.key} has no {extension}, only {', '.join(self.members)}; write the shards again"
            )
        return self.members[extension]


class _OpenTar:
    """A file descriptor that closes with its last reference."""

    def __init__(self, stream: BinaryIO) -> None:
        with stream:
            self.descriptor = os.dup(stream.fileno())

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _Index:
    """A compact sidecar: every loader process holds many."""

    def __init__(self, samples: list[tuple[Member, ...]]) -> None:
        self.keys = [members[0].key for members in samples]
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        extensions = (tuple(member.extension for member in members) for members in samples)
        self._extensions = [shared.setdefault(names, names) for names in extensions]
        self._starts = np.cumsum([0, *(len(members) for members in samples)])
        places = [member[1:] for members in samples for member in members]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 3)

    def members(self, number: int) -> list[Member]:
        """Return the members of one sample."""
        key = self.keys[number]
        places = self._places[self._starts[number] : self._starts[number + 1]].tolist()
        return [
            Member(f"{key}.{extension}", *place)
            for extension, place in zip(self._extensions[number], places, strict=True)
        ]


class _Recent(Generic[T]):
    """Least-recently-used cache of values by shard number."""

    def __init__(self, make: Callable[[int], T], capacity: int) -> None:
        self._make = make
        self._capacity = max(1, capacity)
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int) -> T:
        with self._lock:
            if number in self._values:
                self._values.move_to_end(number)
                return self._values[number]
        value = self._make(number)  # outside the lock: a slow disk must not block other threads
        with self._lock:
            self._values[number] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value

    def forget(self, number: int) -> None:
        with self._lock:
            self._values.pop(number, None)


class ShardSet:
    """A folder of shards as one sequence of samples, in the order of the manifest.

    Args:
        folder: Local folder or URL.
        manifest: What the folder holds.
        cache: Where copies of a URL's shards lie; None for a local folder.

    Raises:
        InputError: A URL has no cache, or the cache is too small or cannot be created.
    """

    def __init__(self, folder: StoragePath, manifest: Manifest, cache: ShardCache | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self._cache = _cache_for(folder, manifest, cache)
        largest = max((shard.num_samples for shard in manifest.shards), default=0)
        self._ends = list(itertools.accumulate(shard.num_samples for shard in manifest.shards))
        self._indexes: _Recent[_Index] = _Recent(self._load_index, _MAX_INDEXED_SAMPLES // max(1, largest))
        self._tars: _Recent[_OpenTar] = _Recent(self._open_tar, _MAX_OPEN_TARS)

    @classmethod
    def open(cls, folder: StoragePath, cache: ShardCache | None = None) -> ShardSet:
        """Open a finished dataset.

        Raises:
            ShardError: There are no shards yet, or the manifest is damaged.
            InputError: A URL has no cache.
        """
        return cls(folder, read_manifest(folder), cache)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest, "cache": self._cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    @property
    def cache_limit_bytes(self) -> int:
        """Size limit of the cache; 0 where shards are read in place."""
        return 0 if self._cache is None else self._cache.limit_bytes

    def prefetch(self, shard: int) -> None:
        """Fetch a shard that will be read soon, unless it is local.

        Raises:
            ShardError: It cannot be fetched.
        """
        if self._cache is not None:
            self._cache.prefetch(self.folder, self.manifest.shards[shard])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """Return which shard a sample is in, and its number there.

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - self.range_of(shard).start

    def range_of(self, shard: int) -> range:
        """Return the indices of a shard's samples."""
        end = self._ends[shard]
        return range(end - self.manifest.shards[shard].num_samples, end)

    def sample(self, index: int) -> Sample:
        """Read a sample.

        Args:
            index: From 0 to `len() - 1`.

        Returns:
            All its members, each checked.

        Raises:
            DamageError: The tar is short, or a member's CRC is wrong; names the shard and the member.
            ShardError: The tar or its sidecar is missing or cannot be read.
            IndexError: There is no such sample.
        """
        shard, number = self.locate(index)
        return self._renewing(shard, lambda: self._sample(shard, number))

    def _sample(self, shard: int, number: int) -> Sample:
        members = self._indexes.get(shard).members(number)
        first, last = members[0], members[-1]  # a sidecar's members are in order and within its tar
        data = self._read(shard, first.offset, last.offset + last.size_bytes - first.offset)
        contents = {}
        for member in members:
            start = member.offset - first.offset
            contents[member.extension] = self._checked(shard, member, data[start : start + member.size_bytes])
        return Sample(first.key, contents)

    def member(self, index: int, extension: str) -> tuple[str, bytes]:
        """Read one member of a sample, and nothing else of it.

        Args:
            index: From 0 to `len() - 1`.
            extension: Such as `png`.

        Returns:
            The sample's key, and the member's bytes, checked.

        Raises:
            DamageError: The tar is short, or the member's CRC is wrong.
            ShardError: The sample has no such member, or a file is missing or cannot be read.
            IndexError: There is no such sample.
        """
        shard, number = self.locate(index)
        members = self._indexes.get(shard).members(number)
        found = [member for member in members if member.extension == extension]
        if not found:
            raise ShardError(
                f"{self._tar(shard)} has no {members[0].key}.{extension}, only "
                f"{', '.join(member.name for member in members)}; write the shards again"
            )
        wanted = found[0]
        content = self._renewing(
            shard, lambda: self._checked(shard, wanted, self._read(shard, wanted.offset, wanted.size_bytes))
        )
        return wanted.key, content

    def samples_of(self, shard: int) -> Iterator[Sample]:
        """Read the samples of one shard in order."""
        for index in self.range_of(shard):
            yield self.sample(index)

    def _tar(self, shard: int) -> StoragePath:
        return child(self.folder, self.manifest.shards[shard].tar_name)

    def _renewing(self, shard: int, read: Callable[[], T]) -> T:
        """Read, and read again if only the local copy was corrupt."""
        try:
            return read()
        except DamageError:
            if self._cache is None or not self._cache.renew(self.folder, self.manifest.shards[shard]):
                raise
            self._tars.forget(shard)
            return read()

    def _read(self, shard: int, offset: int, size_bytes: int) -> bytes:
        try:
            return os.pread(self._tars.get(shard).descriptor, size_bytes, offset)
        except OSError as error:
            if self._cache is None:
                raise ShardError(f"cannot read {self._tar(shard)}: {error.strerror}; {_REPAIR}") from error
            raise ShardError(
                f"cannot read the copy of {self._tar(shard)} in the cache data.cache_dir={self._cache.folder}: "
                f"{error.strerror}; give a folder of your own with --data.cache-dir"
            ) from error

    def _checked(self, shard: int, member: Member, content: bytes) -> bytes:
        if len(content) == member.size_bytes and isal_zlib.crc32(content) == member.crc32:
            return content
        fault = "is cut short" if len(content) < member.size_bytes else "has a wrong CRC"
        raise DamageError(f"{self._tar(shard)} member {member.name} {fault}; {_REPAIR}")

    def _open_tar(self, shard: int) -> _OpenTar:
        entry = self.manifest.shards[shard]
        if self._cache is None:
            return _OpenTar(open_regular(Path(str(self._tar(shard)))))
        for _ in range(_MAX_EVICTIONS):
            with contextlib.suppress(FileNotFoundError):  # evicted by another process between the two calls
                return _OpenTar(self._cache.open(self.folder, entry))
        raise ShardError(
            f"{self._tar(shard)} was evicted from {self._cache.folder} {_MAX_EVICTIONS} times before it could be "
            "opened; raise data.cache_gib, or lower data.window_shards"
        )

    def _load_index(self, shard: int) -> _Index:
        entry = self.manifest.shards[shard]
        path = child(self.folder, entry.sidecar_name)
        if self._cache is not None:
            path = self._cache.sidecar(self.folder, entry)
        try:
            sidecar = read_sidecar(path)
        except ShardError as error:
            if isinstance(error.__cause__, OSError):
                raise  # missing, not damaged: the folder is incomplete
            raise DamageError(str(error)) from error
        if sidecar.entry != entry:
            raise ShardError(
                f"{path} describes another tar than the manifest: SHA-256 {sidecar.entry.sha256[:12]}, not "
                f"{entry.sha256[:12]}; {_REPAIR}"
            )
        limit = self.manifest.config.max_member_bytes
        for member in sidecar.members:
            if member.size_bytes > limit:
                raise ShardError(
                    f"{path} lists {member.name} with {member.size_bytes:,} bytes; a member of this dataset has "
                    f"at most {limit:,}; {_REPAIR}"
                )
        return _Index(sidecar.samples())


def _cache_for(folder: StoragePath, manifest: Manifest, cache: ShardCache | None) -> ShardCache | None:
    if not isinstance(folder, RemotePath):
        return None
    if cache is None:
        raise InputError(f"shards in {folder} are read through a cache; set data.cache_dir")
    cache.prepare(max((shard.size_bytes for shard in manifest.shards), default=0))
    return cache


_REPAIR = "run jobs/verify.py on the folder, delete the damaged tar, and run jobs/shard.py again"

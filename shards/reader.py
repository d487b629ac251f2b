"""Reads any sample of a dataset by its number, without reading through a tar.

A `ShardSet` starts at the manifest, loads sidecars when they are first needed, and reads a sample with one
positioned read. Every member's CRC is checked. It may be pickled, forked and used from threads: nothing is
shared but the files.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from shards.errors import ShardError
from shards.manifest import Manifest, read_manifest
from shards.sidecars import Member, ShardEntry, read_sidecar

T = TypeVar("T")

# An index takes about 200 bytes a sample: DF2K at 480 px (140,000 samples, 500 shards) fits whole in 30 MB.
_MAX_INDEXES = 1024
_MAX_OPEN_TARS = 64


@dataclass(frozen=True)
class Sample:
    """All of one sample."""

    key: str
    members: dict[str, bytes]
    """File contents by extension: `png`, `lq.png`, `json`."""

    @property
    def record(self) -> dict[str, Any]:
        """What the sample's `json` member says; empty if it has none."""
        return json.loads(self.members["json"]) if "json" in self.members else {}


class _OpenTar:
    """A file descriptor that closes when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _Index:
    """A sidecar in little memory: many are kept by every loader process."""

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
    """The last few values by shard number, made when missing."""

    def __init__(self, make: Callable[[int], T], capacity: int) -> None:
        self._make = make
        self._capacity = capacity
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int) -> T:
        with self._lock:
            if number in self._values:
                self._values.move_to_end(number)
                return self._values[number]
        value = self._make(number)  # outside the lock: a slow disk must not stop other threads
        with self._lock:
            self._values[number] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value


class ShardSet:
    """A folder of shards as one sequence of samples, in the order of the manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._ends = list(itertools.accumulate(shard.num_samples for shard in manifest.shards))
        self._reset()

    @classmethod
    def open(cls, folder: Path) -> ShardSet:
        """Open a finished dataset.

        Raises:
            ShardError: There are no shards yet, or the manifest is damaged.
        """
        return cls(folder, read_manifest(folder))

    def _reset(self) -> None:
        self._indexes: _Recent[_Index] = _Recent(self._load_index, _MAX_INDEXES)
        self._tars: _Recent[_OpenTar] = _Recent(self._open_tar, _MAX_OPEN_TARS)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["manifest"])

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

    def key(self, index: int) -> str:
        """Return a sample's key without reading the sample."""
        shard, number = self.locate(index)
        return self._indexes.get(shard).keys[number]

    def sample(self, index: int) -> Sample:
        """Read a sample.

        Args:
            index: From 0 to `len() - 1`.

        Returns:
            All its members, each checked.

        Raises:
            ShardError: The tar is missing, short, or a member's CRC is wrong; names the shard and the member.
            IndexError: There is no such sample.
        """
        shard, number = self.locate(index)
        entry, members = self.manifest.shards[shard], self._indexes.get(shard).members(number)
        first, last = members[0], members[-1]
        data = self._read(shard, first.offset, last.offset + last.size_bytes - first.offset)
        contents = {
            member.extension: _checked(data, member.offset - first.offset, member, entry, self.folder)
            for member in members
        }
        return Sample(first.key, contents)

    def samples_of(self, shard: int) -> Iterator[Sample]:
        """Read the samples of one shard in order."""
        for index in self.range_of(shard):
            yield self.sample(index)

    def _read(self, shard: int, offset: int, size_bytes: int) -> bytes:
        try:
            return os.pread(self._tars.get(shard).descriptor, size_bytes, offset)
        except OSError as error:
            path = self.folder / self.manifest.shards[shard].tar_name
            raise ShardError(f"cannot read {path}: {error.strerror}; {_REPAIR}") from error

    def _open_tar(self, shard: int) -> _OpenTar:
        return _OpenTar(self.folder / self.manifest.shards[shard].tar_name)

    def _load_index(self, shard: int) -> _Index:
        entry = self.manifest.shards[shard]
        path = self.folder / entry.sidecar_name
        sidecar = read_sidecar(path)
        if sidecar.entry != entry:
            raise ShardError(
                f"{path} describes another tar than the manifest: SHA-256 {sidecar.entry.sha256[:12]}, not "
                f"{entry.sha256[:12]}; {_REPAIR}"
            )
        return _Index(sidecar.samples())


def _checked(data: bytes, start: int, member: Member, entry: ShardEntry, folder: Path) -> bytes:
    content = data[start : start + member.size_bytes]
    if len(content) == member.size_bytes and zlib.crc32(content) == member.crc32:
        return content
    fault = "is cut short" if len(content) < member.size_bytes else "has a wrong CRC"
    raise ShardError(f"{folder / entry.tar_name} member {member.name} {fault}; {_REPAIR}")


_REPAIR = "run jobs/verify.py on the folder, delete the damaged tar, and run jobs/shard.py again"

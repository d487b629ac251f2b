"""Local copies of shards that lie in an object store, shared by all processes of a machine.

Guarantees: each file is downloaded by one process while the others wait; its SHA-256 is checked before it takes its
final name; a corrupt download is retried once; the folder stays below its limit, with least-recently-used eviction; a
process killed during a download leaves nothing that another process would take for a shard, and the system releases its
locks.

The folder is this user's own: what others put there is refused, and what was left before the machine's start, or was
changed since it was hashed, is hashed before its first use. A tar is named by its hash, so several datasets and runs
may share a folder. A tar that is corrupt a second time is kept as `HASH.damaged.tar` for a while: most of its samples
may be intact, and each is checked when it is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from shards.errors import InputError, ShardError
from shards.format.documents import MAX_DOCUMENT_BYTES
from shards.format.files import open_atomic, sha256_of, write_atomically
from shards.format.sidecars import ShardEntry, read_sidecar
from shards.format.storage import StoragePath, child, copy_to, read_whole
from shards.read.private import make_private, open_own
from shards.read.verified import is_verified, mark_verified, note_of

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_PAUSES_S = (1.0, 4.0)
_LASTING = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.ENOTDIR})
# After this time a corrupt shard is downloaded again: it may have been repaired in the store.
_DAMAGED_LIFETIME_S = 600.0
_MAX_PREFETCHES = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardCache:
    """A folder of copies. Small and picklable: all state is in the files.

    Attributes:
        folder: On a local disk; created for this user alone if it does not exist.
        limit_bytes: Upper limit for all tars together, except those being fetched or still open in some process.
    """

    folder: Path
    limit_bytes: int

    def prepare(self, largest_bytes: int) -> None:
        """Create the folder, and remove what killed processes left.

        Args:
            largest_bytes: Of the largest shard.

        Raises:
            InputError: The folder cannot be created, or its limit is below the largest shard.
        """
        if self.limit_bytes < largest_bytes:
            raise InputError(
                f"data.cache_gib={self.limit_bytes / 2**30:g} is below the largest shard of "
                f"{largest_bytes / 2**30:.3g} GiB; give room for twice data.window_shards shards"
            )
        try:
            make_private(self.folder)
        except OSError as error:
            raise InputError(f"cannot make data.cache_dir={self.folder}: {error.strerror}; give another") from error
        for digest in {path.name.split(".")[1] for path in self.folder.glob(".*.sed-tmp")}:
            if not _DIGEST.fullmatch(digest):
                continue
            with self._lock(_slot(digest), wait=False) as acquired:
                if acquired:
                    self._remove_partial(digest)

    def tar(self, home: StoragePath, entry: ShardEntry) -> Path:
        """Return the copy of a tar; fetch it if it is not there.

        Args:
            home: Folder of the dataset in the store.
            entry: The shard.

        Returns:
            A file with the entry's SHA-256, or the corrupt one if the store's own file is corrupt. Another process may
            evict it at any time.

        Raises:
            ShardError: It cannot be fetched, or another user created a file under its name.
        """
        found = self._cached_tar(entry)
        if found is not None:
            return found
        with self._lock(_slot(entry.sha256)):
            return self._cached_tar(entry) or self._fetch_tar(home, entry)

    def open(self, home: StoragePath, entry: ShardEntry) -> BinaryIO:
        """Open the copy of a tar; see `tar`.

        Raises:
            FileNotFoundError: Another process evicted it meanwhile; worth a retry.
            ShardError: It cannot be fetched.
        """
        path = self.tar(home, entry)
        stream = open_own(path)
        if path == self._whole(entry) and not is_verified(stream, path, entry):
            stream.close()
            raise FileNotFoundError(errno.ENOENT, "was replaced meanwhile", str(path))
        return stream

    def sidecar(self, home: StoragePath, entry: ShardEntry) -> Path:
        """Return the copy of a sidecar; fetch it if it is not there or damaged.

        Raises:
            ShardError: It cannot be fetched.
        """
        copy = self._sidecar(entry)
        if not _is_sidecar_of(copy, entry):
            with self._lock(_slot(entry.sha256)):
                self._fetch_sidecar(home, entry)
        return copy

    def prefetch(self, home: StoragePath, entry: ShardEntry) -> None:
        """Fetch a tar and its sidecar, unless cached, being fetched, or enough other prefetches run on this machine.

        Never waits for another process, so that several fetch several tars.

        Raises:
            ShardError: One of them cannot be fetched.
        """
        with contextlib.ExitStack() as stack:

            def is_free(slot: str) -> bool:
                return stack.enter_context(self._lock(slot, wait=False))

            turns = (f"prefetch-{number}" for number in range(_MAX_PREFETCHES))
            if is_free(_slot(entry.sha256)) and any(map(is_free, turns)):
                if not self._sidecar(entry).exists():  # whoever reads it notices damage
                    self._fetch_sidecar(home, entry)
                if self._cached_tar(entry) is None:
                    self._fetch_tar(home, entry)

    def renew(self, home: StoragePath, entry: ShardEntry) -> bool:
        """Fetch a tar again if its local copy is corrupt.

        Returns:
            Whether it was fetched again.

        Raises:
            ShardError: It cannot be fetched.
        """
        with self._lock(_slot(entry.sha256)):
            copy = self._whole(entry)
            if not copy.is_file() or sha256_of(copy) == entry.sha256:
                return False
            _LOG.warning("%s is corrupt on this machine's disk; fetching it again", copy)
            copy.unlink()
            self._fetch_tar(home, entry)
            return True

    def size_bytes(self) -> int:
        """Return the size of all tars, including those being fetched."""
        return sum(size for _, size, _ in self._tars())

    def _sidecar(self, entry: ShardEntry) -> Path:
        return Path(str(child(self.folder, f"{entry.sha256}.json")))

    def _whole(self, entry: ShardEntry) -> Path:
        return Path(str(child(self.folder, f"{entry.sha256}.tar")))

    def _damaged(self, entry: ShardEntry) -> Path:
        return Path(str(child(self.folder, f"{entry.sha256}.damaged.tar")))

    def _cached_tar(self, entry: ShardEntry) -> Path | None:
        with contextlib.suppress(FileNotFoundError), open_own(self._whole(entry)) as stream:
            if is_verified(stream, self._whole(entry), entry):
                with contextlib.suppress(FileNotFoundError, PermissionError):  # evicted meanwhile; root's
                    os.utime(note_of(self._whole(entry)))  # most recently used
                return self._whole(entry)
            _LOG.warning("%s does not have the SHA-256 in the manifest; fetching it again", self._whole(entry))
        with contextlib.suppress(FileNotFoundError):
            if time.time() - self._damaged(entry).stat().st_mtime < _DAMAGED_LIFETIME_S:
                return self._damaged(entry)
        return None

    def _fetch_sidecar(self, home: StoragePath, entry: ShardEntry) -> None:
        """Fetch a sidecar that is not there or damaged, once more if it arrives so. The caller holds its lock."""
        copy, source = self._sidecar(entry), child(home, entry.sidecar_name)
        for _ in range(2):
            if not _is_sidecar_of(copy, entry):
                self._retried(lambda: _copy_document(source, copy))

    def _fetch_tar(self, home: StoragePath, entry: ShardEntry) -> Path:
        """Fetch, check and publish a tar. The caller holds its lock."""
        self._remove_partial(entry.sha256)
        self._damaged(entry).unlink(missing_ok=True)
        self._make_room(entry.size_bytes)
        source, whole, damaged = child(home, entry.tar_name), self._whole(entry), self._damaged(entry)
        if self._retried(lambda: _download(source, damaged)) != entry.sha256:
            _LOG.warning("%s does not have the SHA-256 in the manifest; fetching it again", source)
            if self._retried(lambda: _download(source, damaged)) != entry.sha256:
                _LOG.error("%s is corrupt in the store; its corrupt samples will be replaced", source)
                return damaged
        damaged.replace(whole)
        with contextlib.suppress(FileNotFoundError), open_own(whole) as stream:
            mark_verified(stream, whole)
        self._make_room(0)  # other processes may have fetched meanwhile
        return whole

    def _remove_partial(self, digest: str) -> None:
        for path in self.folder.glob(f".{digest}.*.sed-tmp"):
            path.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int) -> None:
        with self._lock("space"):
            tars = sorted(self._tars())
            used_bytes = sum(size for _, size, _ in tars)
            for _, size, path in tars:
                if used_bytes + size_bytes <= self.limit_bytes:
                    break
                for one in (path, note_of(path), path.with_name(f"{path.name.partition('.')[0]}.json")):
                    one.unlink(missing_ok=True)
                used_bytes -= size

    def _tars(self) -> list[tuple[float, int, Path]]:
        """Return (time of last use, size, path) of every tar."""
        found = []
        for path in self.folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                used = note_of(path) if note_of(path).exists() else path
                found.append((used.stat().st_mtime, path.stat().st_size, path))
        return found

    @contextlib.contextmanager
    def _lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a machine-wide lock; yield whether it was acquired. The system releases it when the process dies."""
        with self._lock_file(name) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _lock_file(self, name: str) -> BinaryIO:
        try:
            return open_own(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ShardError(
                f"cannot write to the cache data.cache_dir={self.folder}: {error.strerror}; give a folder of your own "
                "with --data.cache-dir"
            ) from error

    def _retried(self, fetch: Callable[[], T]) -> T:
        """Call, and retry after transient failures."""
        for pause_s in (*_PAUSES_S, None):
            try:
                return fetch()
            except OSError as error:
                if pause_s is None or error.errno in _LASTING:
                    raise ShardError(
                        f"cannot fetch a shard: {error.strerror or error} ({error.filename}); check that the store is "
                        "reachable, its credentials (AWS_* or ~/.aws for s3://), and that there is room in the cache "
                        f"data.cache_dir={self.folder}"
                    ) from error
                _LOG.warning("fetching failed (%s); retrying in %g s", error, pause_s)
                time.sleep(pause_s)
        raise AssertionError


def _slot(digest: str) -> str:
    # Hashes share 256 lock files, which are never deleted: there is no safe time to do so.
    return digest[:2]


def _is_sidecar_of(copy: Path, entry: ShardEntry) -> bool:
    try:
        open_own(copy).close()
    except FileNotFoundError:
        return False
    try:
        return read_sidecar(copy).entry == entry
    except ShardError:
        return False


def _copy_document(source: StoragePath, target: Path) -> None:
    write_atomically(target, read_whole(source, MAX_DOCUMENT_BYTES), durable=False)


def _download(source: StoragePath, target: Path) -> str:
    """Copy a file; return the SHA-256 of the bytes received."""
    # Not durable: what a power cut leaves of a copy is noticed by its hash, at its first use.
    with open_atomic(target, durable=False) as stream:
        copy_to(source, Path(stream.name))
        return sha256_of(Path(stream.name))

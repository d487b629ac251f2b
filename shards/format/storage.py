"""Storage of datasets: a local folder, a plain `pathlib.Path`, or a place in an object store, a `RemotePath`.

Most code works with either, since a `RemotePath` has the methods of `Path` that it uses. Where the two differ
(publishing a file, hashing it, its size) there is one function for both, here or in `shards.format.files`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from shards.errors import InputError, ShardError
from shards.format.expansion import expand
from shards.format.names import check_local
from shards.format.remote import HTTP, RemotePath, blocks_of
from shards.secrets import without_secrets

StoragePath: TypeAlias = RemotePath | Path
"""A folder or file of a dataset, local or remote."""


def parse_path(text: str) -> StoragePath:
    """Parse a path as users write it: a URL with `://`, or a local path; see `expand`.

    Raises:
        InputError: It is empty, no URL in spite of its `://`, a URL with characters that do not reach the store, or
            names an environment variable that is not set.
    """
    if not text:
        raise InputError("an empty path; give a folder, or a URL such as s3://bucket/prefix")
    check_local(text)
    text = expand(text)
    if text.startswith("file://") or "://" not in text:
        return _local(text.removeprefix("file://"))
    _check_characters(text)
    return RemotePath(text)


def _check_characters(url: str) -> None:
    """Refuse what clients take for something else than a part of a name, and would read or write elsewhere."""
    is_web = url.partition("://")[0] in HTTP
    reasons = {
        "a control character": any(unicodedata.category(character) in {"Cc", "Cs"} for character in url),
        "'::', which clients read as two stores": "::" in url,
        "'?', which clients read as the start of a query": "?" in url and not is_web,
        "'#', which ends a web address": "#" in url and is_web,
    }
    remedy = "write it as % and its code (%23 for '#')" if is_web else "give the folder a name without it"
    for reason, applies in reasons.items():
        if applies:
            raise InputError(f"{without_secrets(url, url)!r} holds {reason}; {remedy}")


def parse_local_path(text: str) -> Path:
    """Parse a local path as users write it; see `expand`.

    Raises:
        InputError: It is empty, a URL, or names an environment variable that is not set.
    """
    if not text:
        raise InputError("an empty path; give a file or a folder")
    check_local(text)
    text = expand(text).removeprefix("file://")
    if "://" in text:
        raise InputError(f"{without_secrets(text, text)} is a URL; give a path on this machine")
    return _local(text)


def _local(text: str) -> Path:
    """Return a path that ends in a name, by which sets, runs and datasets are called: `.` and `..` have none."""
    check_local(text)
    path = Path(text)
    return path.resolve() if path.name in {"", ".."} else path


def as_given(path: StoragePath) -> str:
    """Return a path as `parse_path` takes it, a URL with its secrets: for another process, never for a record."""
    return path.url if isinstance(path, RemotePath) else str(path)


def size_bytes(path: StoragePath) -> int:
    """Return the size of a file or object.

    Raises:
        OSError: It is missing or unreachable.
    """
    return path.size_bytes() if isinstance(path, RemotePath) else path.stat().st_size


def child(folder: StoragePath, name: str) -> StoragePath:
    """Return a file directly in a folder: the one way from a name that was read somewhere to a path.

    Raises:
        ShardError: The name leads elsewhere, or is hidden.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise ShardError(f"{name!r} is not the name of a file in {folder}; its document is damaged or malicious")
    return folder / name


def read_whole(path: StoragePath, max_bytes: int) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: It is missing, cannot be read, is not a regular file, or is larger.
    """
    if isinstance(path, RemotePath):
        return path.read_whole(max_bytes)
    with open_regular(path) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes > max_bytes:
            reason = f"has {size_bytes:,} bytes, more than the {max_bytes:,} that it may have"
            raise OSError(errno.EFBIG, reason, str(path))
        return stream.read(max_bytes)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, and nothing that only looks like one: a pipe would block, a device never end.

    Raises:
        OSError: It is missing, cannot be read, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def blocks(path: StoragePath) -> Iterator[bytes]:
    """Yield a file's bytes, at most 1 MiB at a time.

    Raises:
        OSError: It is missing or cannot be read.
    """
    if isinstance(path, RemotePath):
        yield from path.blocks()
    else:
        with open_regular(path) as stream:
            yield from blocks_of(stream)


def copy_to(source: StoragePath, target: Path) -> None:
    """Copy a file or object into a local file, whose folder must exist.

    Raises:
        OSError: It is missing or cannot be read, or there is no room.
    """
    if isinstance(source, RemotePath):
        source.download(target)
    else:
        shutil.copyfile(source, target)

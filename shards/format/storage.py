"""Storage of datasets: a local folder, or a URL that fsspec supports, such as `s3://bucket/prefix`.

Local folders are plain `pathlib.Path`. A `RemotePath` has the few methods of `Path` that this package uses, with the
same names and the same errors, so that most code works with either. Where the two differ (publishing a file, hashing
it, its size) there is one function for both, here or in `shards.format.files`.

An object is written whole, in one PUT, and only if none exists yet (`If-None-Match: *`). An existing object with the
same bytes is left alone; one with other bytes is replaced only if it is unchanged since the comparison (`If-Match`). On
S3 the PUT carries the SHA-256 of the bytes, which the store checks. Stores without conditional writes get a plain PUT.

Credentials and endpoints are configured as the store's client expects, on every machine: `AWS_*` variables and `~/.aws`
for S3.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import fsspec

from shards.errors import InputError, ShardError
from shards.format.endpoints import ANSWER_TIMEOUT_S, check_answers_once, check_listens_once, origin
from shards.format.expansion import expand
from shards.format.names import check_local
from shards.format.s3 import PROTOCOLS as _S3
from shards.format.s3 import is_missing_bucket, put_object, with_reason
from shards.secrets import without_secrets

_BLOCK_BYTES = 1 << 20
_HTTP = frozenset({"http", "https"})
_PORTS = {"ftp": 21, "sftp": 22, "ssh": 22, "smb": 445}
_EXISTS = frozenset({errno.EEXIST, errno.EINVAL})  # what stores raise for `If-None-Match: *` if the object exists
_MAX_PUT_BYTES = 5 * 2**30
_EXTRAS = {"s3": "s3", "s3a": "s3"}


@dataclass(frozen=True, order=True)
class RemotePath:
    """A place in an object store; small, picklable, and without a connection of its own."""

    url: str
    """`PROTOCOL://BUCKET/KEY`, without a slash at its end."""

    def __post_init__(self) -> None:
        """Check the form.

        Raises:
            InputError: It is not a URL.
        """
        protocol, separator, rest = self.url.partition("://")
        if not (protocol and separator and rest.strip("/")):
            raise InputError(
                f"{without_secrets(self.url, self.url)!r} is not PROTOCOL://BUCKET/PREFIX, such as s3://bucket/shards"
            )
        object.__setattr__(self, "url", f"{protocol}://{rest.rstrip('/')}")

    def __str__(self) -> str:
        """Return the URL as people and records may see it; `url` alone connects."""
        return without_secrets(self.url, self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __truediv__(self, name: str) -> RemotePath:
        if self.protocol not in _HTTP:
            return RemotePath(f"{self.url}/{name}")
        place, mark, query = self.url.partition("?")  # a signature over the whole folder
        return RemotePath(f"{place.rstrip('/')}/{name}{mark}{query}")

    @property
    def protocol(self) -> str:
        """Scheme, before `://`."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """Last part."""
        # A key may hold a question mark; in the address of a web server, or after a password, there may be a secret.
        may_have_secrets = self.protocol in _HTTP or "@" in self.url
        return posixpath.basename(str(self) if may_have_secrets else self.url)

    @property
    def stem(self) -> str:
        """Last part without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    def resolve(self) -> RemotePath:
        """Return itself: a URL means the same everywhere."""
        return self

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: stores have no folders."""

    def exists(self) -> bool:
        """Return whether an object has this URL, or this URL as a prefix."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Return whether an object has this URL.

        Raises:
            OSError: The store is unreachable, or permission is denied.
        """
        try:
            with _errors_of(self) as (store, key):
                return store.info(key)["type"] == "file"
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Return whether any object has this URL as a prefix."""
        return any(True for _ in self.iterdir())

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield the direct children, sorted; none where nothing has this URL as a prefix.

        Raises:
            InputError: There is no such bucket.
            OSError: The store is unreachable, or permission is denied.
        """
        try:
            with _errors_of(self) as (store, key):
                names = store.ls(key, detail=False)
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise InputError(f"{self} cannot be used: {error.strerror}; create it, or check the URL") from error
            names = []
        own = self.url.partition("://")[2]
        for name in sorted(posixpath.basename(name.rstrip("/")) for name in names if name.strip("/") != own):
            yield self / name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the direct children whose names match."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        """Return the whole object.

        Raises:
            OSError: As `Path.read_bytes`.
        """
        with _errors_of(self) as (store, key):
            return store.cat_file(key)

    def blocks(self) -> Iterator[bytes]:
        """Yield the object piece by piece."""
        with _errors_of(self) as (store, key), store.open(key, "rb", cache_type="readahead") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block

    def size_bytes(self) -> int:
        """Return the object's size."""
        with _errors_of(self) as (store, key):
            return int(store.info(key)["size"])

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the object."""
        try:
            with _errors_of(self) as (store, key):
                store.rm_file(key)
        except OSError:  # some stores have no error of their own for a missing object
            if not missing_ok or self.is_file():
                raise

    def publish(self, stream: BinaryIO) -> None:
        """Write the whole object; see the module for what happens if it exists.

        Args:
            stream: Local file, read from its start.

        Raises:
            OSError: The store failed, or another writer changed the object at the same time.
        """
        digest = _digest(_blocks_of(stream))
        if stream.tell() > _MAX_PUT_BYTES:
            raise InputError(f"{self} would have {stream.tell()} bytes, a store takes 5 GiB; lower shard_size_mib")
        try:
            with _errors_of(self) as (store, key):
                _put(self, store, key, stream, digest, {"IfNoneMatch": "*"})
        except OSError as error:
            if error.errno not in _EXISTS or not self.is_file():
                raise
            with _errors_of(self) as (store, key):
                etag = store.info(key).get("ETag")
                if _digest(self.blocks()) != digest:
                    _put(self, store, key, stream, digest, {"IfMatch": etag} if etag else {})


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
    is_web = url.partition("://")[0] in _HTTP
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
        _check_size(path, path.size_bytes(), max_bytes)
        return path.read_bytes()
    with open_regular(path) as stream:
        _check_size(path, os.fstat(stream.fileno()).st_size, max_bytes)
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


def _check_size(path: StoragePath, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise OSError(errno.EFBIG, f"has {size_bytes:,} bytes, more than the {max_bytes:,} that it may have", str(path))


def blocks(path: StoragePath) -> Iterator[bytes]:
    """Yield a file's bytes, at most 1 MiB at a time.

    Raises:
        OSError: It is missing or cannot be read.
    """
    if isinstance(path, RemotePath):
        yield from path.blocks()
    else:
        with open_regular(path) as stream:
            yield from _blocks_of(stream)


def _blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(0)
    while block := stream.read(_BLOCK_BYTES):
        yield block


def _digest(pieces: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _put(path: RemotePath, store: Any, key: str, stream: BinaryIO, digest: bytes, condition: dict[str, str]) -> None:
    stream.seek(0)
    if path.protocol not in _S3:
        mode = "create" if "IfNoneMatch" in condition else "overwrite"
        store.pipe_file(key, stream.read(), mode=mode)
        return
    put_object(store, key, stream, digest, condition)


@contextlib.contextmanager
def _errors_of(path: RemotePath) -> Iterator[tuple[Any, str]]:
    """Yield the store and the key, and turn whatever its client raises into an `OSError` that names the URL."""
    store, key = None, ""
    try:
        store, key = _open_store(path)
        yield store, key
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - each client has errors of its own, with no common base
        if path.protocol in _S3 and store is not None:
            error = with_reason(store, key, error)
        code = _code_of(error) if isinstance(error, OSError) else errno.EIO
        shown = OSError(code, _first_line(error, path), str(path))
        # A traceback shows causes as they are.
        raise shown from error if without_secrets(error, path.url) == str(error) else None


def _open_store(path: RemotePath) -> tuple[Any, str]:
    """Return the client, once its address responds, and the key."""
    if path.protocol in _HTTP:
        check_answers_once(origin(path.url))
    elif port := _PORTS.get(path.protocol):
        check_listens_once(origin(path.url), port)
    # Listings are not cached: other machines write here too.
    options: dict[str, Any] = {"use_listings_cache": False} if path.protocol in _S3 else {}
    if path.protocol == "ftp":
        options["timeout"] = ANSWER_TIMEOUT_S
    try:
        store, key = fsspec.url_to_fs(path.url, **options)
        if path.protocol in _S3:
            store.connect()
            check_answers_once(store.s3.meta.endpoint_url)
        return store, key
    except OSError:
        raise
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(path.protocol)
        remedy = f"pip install 'sed-trainer[{extra}]' on every machine" if extra else "install the package it names"
        raise InputError(f"cannot use {path}: {_first_line(error, path)}; {remedy}, or give a local folder") from error


def _code_of(error: OSError) -> int:
    # Clients raise the right class, often without a number.
    named = {FileNotFoundError: errno.ENOENT, FileExistsError: errno.EEXIST, PermissionError: errno.EACCES}
    return error.errno or next((code for kind, code in named.items() if isinstance(error, kind)), errno.EIO)


def _first_line(error: Exception, path: RemotePath) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(text, path.url).splitlines()[0]

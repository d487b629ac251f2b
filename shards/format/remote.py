"""A place in an object store, by a URL that fsspec supports, such as `s3://bucket/prefix`.

It has the few methods of `pathlib.Path` that this package uses, with the same names and the same errors.

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
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from shards.errors import InputError
from shards.format.endpoints import ANSWER_TIMEOUT_S, check_answers_once, check_listens_once, origin
from shards.format.s3 import PROTOCOLS as _S3
from shards.format.s3 import is_missing_bucket, put_object, with_reason
from shards.secrets import without_secrets

_BLOCK_BYTES = 1 << 20
HTTP = frozenset({"http", "https"})
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
        if self.protocol not in HTTP:
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
        may_have_secrets = self.protocol in HTTP or "@" in self.url
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

    def read_whole(self, max_bytes: int) -> bytes:
        """Return the whole object by one request, unless it is larger than so many bytes.

        Raises:
            OSError: As `Path.read_bytes`, or it is larger.
        """
        with tempfile.NamedTemporaryFile() as copy, _errors_of(self) as (store, key):
            store.get_file(key, copy.name, callback=_Limit(max_bytes))
            return copy.read()

    def blocks(self) -> Iterator[bytes]:
        """Yield the object piece by piece."""
        with _errors_of(self) as (store, key), store.open(key, "rb", cache_type="readahead") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block

    def download(self, target: Path) -> None:
        """Copy the object into a local file, whose folder must exist; on S3 a large one by several requests at once.

        Raises:
            OSError: As `Path.read_bytes`.
        """
        with _errors_of(self) as (store, key):
            store.get_file(key, str(target))

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
        digest = sha256(blocks_of(stream))
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
                if sha256(self.blocks()) != digest:
                    _put(self, store, key, stream, digest, {"IfMatch": etag} if etag else {})


class _Limit(fsspec.Callback):
    """Ends a download that is, or becomes, larger than allowed."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def set_size(self, size: int | None) -> None:
        """Take the size that the store states, if it does."""
        self._check(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        """Take the size of a further piece."""
        super().relative_update(inc)
        self._check(self.value)

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise OSError(errno.EFBIG, f"has more than the {self._max_bytes:,} bytes that it may have")


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a local file's bytes from its start, at most 1 MiB at a time."""
    stream.seek(0)
    while block := stream.read(_BLOCK_BYTES):
        yield block


def sha256(pieces: Iterator[bytes]) -> bytes:
    """Return the SHA-256 of bytes that come piece by piece."""
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
    except Exception as error:  # each client has errors of its own, with no common base
        if path.protocol in _S3 and store is not None:
            error = with_reason(store, key, error)
        code = _code_of(error) if isinstance(error, OSError) else errno.EIO
        shown = OSError(code, _first_line(error, path), str(path))
        if without_secrets(error, path.url) != str(error):
            raise shown from None  # a traceback shows causes as they are
        raise shown from error


def _open_store(path: RemotePath) -> tuple[Any, str]:
    """Return the client, once its address responds, and the key."""
    if path.protocol in HTTP:
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

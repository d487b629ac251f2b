"""What only S3 has: uploads that the store checks, and the reason of a refusal."""

from __future__ import annotations

import base64
import errno
from typing import Any, BinaryIO

PROTOCOLS = frozenset({"s3", "s3a"})
_WITHOUT_REASON = frozenset({"Bad Request", "Forbidden"})


def put_object(store: Any, key: str, stream: BinaryIO, sha256: bytes, condition: dict[str, str]) -> None:
    """Write an object by one PUT, rather than by fsspec's multipart upload: a killed writer leaves no partial upload.

    Args:
        store: Its client.
        key: Of the object, with its bucket.
        stream: Local file, at its start.
        sha256: Of all its bytes, which the store compares with what it received.
        condition: `IfNoneMatch` or `IfMatch`; not used where the store has no such thing.
    """
    bucket, name, _ = store.split_path(key)
    checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": base64.b64encode(sha256).decode("ascii")}
    try:
        store.call_s3("put_object", Bucket=bucket, Key=name, Body=stream, **checksum, **condition)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        stream.seek(0)
        store.call_s3("put_object", Bucket=bucket, Key=name, Body=stream, **checksum)


def with_reason(store: Any, key: str, error: Exception) -> Exception:
    """Return an error that states why the store refused a request.

    The response to HEAD, by which an object's size is read, has no body: an expired token is a "Bad Request", a wrong
    secret "Forbidden". A listing by the same client is refused for the same reason, and its response states it.
    """
    if (getattr(error, "strerror", None) or str(error)) not in _WITHOUT_REASON:
        return error
    bucket, name, _ = store.split_path(key)
    try:
        store.call_s3("list_objects_v2", Bucket=bucket, Prefix=name, MaxKeys=1)
    except OSError as refusal:
        return refusal
    return error


def is_missing_bucket(error: BaseException | None) -> bool:
    """Return whether a "not found" is about the whole bucket."""
    while error is not None:
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket":
            return True
        error = error.__cause__
    return False

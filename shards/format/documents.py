"""JSON documents with a digest of their own content: plan, sidecars and manifest.

A document has one canonical form and carries the SHA-256 of its own content, so that any changed, missing or added byte
is detected on reading, and equal content always has equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from shards.errors import ShardError, shown
from shards.format.storage import StoragePath, read_whole
from shards.schema import SchemaError, parse, parse_json

T = TypeVar("T")

FORMAT_VERSION = 1
"""Version of everything that this package writes; see FORMAT.md."""

MAX_DOCUMENT_BYTES = 2**30
"""Larger files are not documents of this format: a plan of 2 million photos, or a sidecar of 7 million members."""

_REBUILD = "delete it and rerun jobs/shard.py with the same settings"


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON text of a value: sorted keys, no spaces, ASCII, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the file bytes of a document: its content, format version and digest."""
    document = {**content, "format_version": FORMAT_VERSION}
    document["digest"] = digest_of(document)
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def read_document(path: StoragePath, type_: type[T], max_bytes: int) -> T:
    """Read a JSON document that carries no digest.

    Args:
        path: The file.
        type_: The schema.
        max_bytes: A larger file is none.

    Raises:
        OSError: It is missing, cannot be read, is no regular file, or is larger.
        SchemaError: It is not strict JSON, or violates the schema.
    """
    return parse(parse_json(read_whole(path, max_bytes)), type_, str(path))


def read_sealed(path: StoragePath, *, remedy: str = _REBUILD) -> dict[str, Any]:
    """Read a document and check every byte of it.

    Args:
        path: File written from `seal`.
        remedy: What an error tells the user to do.

    Returns:
        The content, without format version, with `digest`.

    Raises:
        ShardError: The file is missing, damaged, or of another format version.
    """
    try:
        raw = read_whole(path, MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise ShardError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    try:
        document = parse_json(raw)
    except SchemaError as error:
        raise ShardError(f"{path} is damaged: got {len(raw)} bytes that are {error}; {remedy}") from error
    if not isinstance(document, dict):
        raise ShardError(f"{path} is damaged: got {len(raw)} bytes that are not a JSON document; {remedy}")
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path} has format version {shown(version)}, this program reads {FORMAT_VERSION}; "
            "use the program that wrote it, or write the shards again into a new folder"
        )
    content = {key: value for key, value in document.items() if key != "digest"}
    if seal(content) != raw:
        raise ShardError(f"{path} is damaged: its bytes do not match its own digest; {remedy}")
    return {**content, "digest": document["digest"]}


def parse_sealed(content: Mapping[str, Any], type_: type[T], path: StoragePath, *, remedy: str = _REBUILD) -> T:
    """Build a dataclass from a document that was read.

    Args:
        content: From `read_sealed`; its digest is dropped.
        type_: The schema.
        path: The file, for errors.
        remedy: What an error tells the user to do.

    Raises:
        ShardError: Lists every value that violates the schema.
    """
    try:
        return parse({key: value for key, value in content.items() if key != "digest"}, type_, str(path))
    except SchemaError as error:
        raise ShardError(f"{error}\n  {remedy}") from error

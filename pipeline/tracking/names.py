"""Names that MLflow and W&B accept. `metrics.jsonl` keeps the real ones."""

from __future__ import annotations

import hashlib
import re

SCHEME = "models:/"
"""Prefix of a registered model's URI."""

MAX_NAME_BYTES = 250
"""MLflow accepts 250 characters; where it keeps a file per metric, file systems accept 255 bytes."""
MAX_PICTURE_BYTES = 120
"""MLflow builds a file name from it, with 100 characters of its own."""

MAX_PROJECT_CHARACTERS = 128
"""Of a project of W&B."""

_NOT_IN_PROJECTS = re.compile(r"[/\\#?%:]")
_NOT_IN_METRICS = re.compile(r"[^/\w.\- ]")
_NOT_IN_PICTURES = re.compile(r"[^/\w.\- ]", re.ASCII)
_DIGEST_CHARACTERS = 8


def metric_name(name: str) -> str:
    """Return the name of a metric, parameter or tag: unchanged where MLflow accepts it, else a distinct one."""
    return _accepted(name, _NOT_IN_METRICS, MAX_NAME_BYTES)


def picture_name(name: str) -> str:
    """Return the name of a picture in the same way; MLflow accepts fewer characters there."""
    return _accepted(name, _NOT_IN_PICTURES, MAX_PICTURE_BYTES)


def text(value: object, max_characters: int) -> str:
    """Return a parameter's or tag's value, truncated; NUL and undecodable bytes, which databases refuse, become `?`."""
    return str(value)[:max_characters].encode(errors="replace").decode().replace("\0", "?")


def title(name: str) -> str:
    """Return the name of an experiment or run: unchanged if it is printable, not empty and not too long."""
    printable = "".join(character if character.isprintable() else "_" for character in name)
    return name if name.strip() and printable == name and _fits(name, MAX_NAME_BYTES) else _mapped(name, printable)


def project_name(name: str) -> str:
    """Return the name of a project of W&B in the same way; W&B refuses some characters in it."""
    accepted = _NOT_IN_PROJECTS.sub("_", title(name))
    is_accepted = accepted == name and len(name) <= MAX_PROJECT_CHARACTERS
    return name if is_accepted else _mapped(name, accepted, MAX_PROJECT_CHARACTERS)


def _accepted(name: str, refused: re.Pattern[str], max_bytes: int) -> str:
    parts = [part for part in refused.sub("_", name).split("/") if part not in {"", ".", ".."}]
    accepted = "/".join(parts)
    return name if name and accepted == name and _fits(name, max_bytes) else _mapped(name, accepted, max_bytes)


def _fits(name: str, max_bytes: int) -> bool:
    return len(name.encode(errors="surrogatepass")) <= max_bytes


def _mapped(name: str, accepted: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Return the accepted part of a name, truncated, with a digest of the real one: names stay distinct."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    start = accepted.encode(errors="replace")[: max_bytes - _DIGEST_CHARACTERS - 1].decode(errors="ignore")
    return f"{start}-{digest}"

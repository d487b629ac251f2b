"""Names as MLflow takes them. `metrics.jsonl` keeps the real ones."""

from __future__ import annotations

import hashlib
import re

MAX_METRIC_CHARACTERS = 250
MAX_PICTURE_CHARACTERS = 120
"""MLflow makes a file name of it, with 100 characters of its own."""

_NOT_IN_METRICS = re.compile(r"[^/\w.\- ]")
_NOT_IN_PICTURES = re.compile(r"[^/\w.\- ]", re.ASCII)
_DIGEST_CHARACTERS = 8


def metric_name(name: str) -> str:
    """Return the name of a metric, parameter or tag: unchanged where MLflow takes it, else mapped to one of its own."""
    return _accepted(name, _NOT_IN_METRICS, MAX_METRIC_CHARACTERS)


def picture_name(name: str) -> str:
    """Return the name of a picture in the same way; MLflow takes fewer characters there."""
    return _accepted(name, _NOT_IN_PICTURES, MAX_PICTURE_CHARACTERS)


def _accepted(name: str, refused: re.Pattern[str], max_characters: int) -> str:
    parts = [part for part in refused.sub("_", name).split("/") if part not in {"", ".", ".."}]
    mapped = "/".join(parts)
    if name and mapped == name and len(name) <= max_characters:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{mapped[: max_characters - _DIGEST_CHARACTERS - 1]}-{digest}"

"""Structured mutations of JSON documents, and documents sealed as an attacker would seal them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from collections.abc import Iterator
from typing import Any

ABSENT = object()
_DEEP: Any = 1
for _ in range(60):
    _DEEP = [_DEEP]

VALUES: tuple[Any, ...] = (
    ABSENT,
    None,
    [],
    {},
    [None],
    {"a": 1},
    True,
    0,
    1,
    -1,
    2**31,
    2**63,
    10**30,
    0.5,
    -1e300,
    math.nan,
    math.inf,
    "",
    "x",
    "../victim/.docker/config",
    "/etc/passwd",
    ".hidden",
    "a/b",
    "nul\0",
    "\ud800",
    "9" * 5000,
    _DEEP,
)


def places(document: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*prefix, key))


def mutations(document: dict[str, Any], count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield documents with one value changed: every value by every other, in a seeded order, cut at a count."""
    pairs = [(place, number) for place in places(document) for number in range(len(VALUES))]
    random.Random(seed).shuffle(pairs)
    for place, number in pairs[:count]:
        changed = copy.deepcopy(document)
        table = changed
        for key in place[:-1]:
            table = table[key]
        if VALUES[number] is ABSENT:
            del table[place[-1]]
        else:
            table[place[-1]] = VALUES[number]
        yield f"{place}: {'absent' if VALUES[number] is ABSENT else repr(VALUES[number])[:40]}", changed


def sealed(content: dict[str, Any]) -> bytes:
    """Return a document with a digest that fits: an attacker can compute it as well."""
    content = {key: value for key, value in content.items() if key != "digest"}
    compact = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    content["digest"] = hashlib.sha256(compact.encode("ascii")).hexdigest()
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True).encode("ascii") + b"\n"

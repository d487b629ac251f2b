"""The bounds of a schema hold wherever a bounded type stands: by itself, as an option, in lists and in tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from shards.schema import Count, FileStem, SchemaError, Sha256, parse

DIGEST = "ab" * 32


@dataclass(frozen=True)
class Inner:
    count: Count = 0


class Pair(NamedTuple):
    number: Count = 0
    digest: Sha256 | None = None


@dataclass(frozen=True)
class Everywhere:
    plain: Count = 0
    option: Sha256 | None = None
    listed: tuple[Count, ...] = ()
    two: tuple[Count, Count] = (0, 0)
    nested: tuple[tuple[Count, ...], ...] = ()
    options: tuple[Sha256 | None, ...] = ()
    table: Mapping[FileStem, Count] = field(default_factory=dict)
    table_of_options: Mapping[str, Sha256 | None] = field(default_factory=dict)
    table_of_lists: Mapping[str, tuple[Count, ...]] = field(default_factory=dict)
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    pair: Pair | None = None


@pytest.mark.parametrize(
    "document",
    [
        {"plain": -1},
        {"option": "../x"},
        {"option": 5},
        {"listed": [0, -1]},
        {"two": [0, -1]},
        {"nested": [[-1]]},
        {"options": [DIGEST, "x"]},
        {"table": {"a": -1}},
        {"table": {".hidden": 1}},
        {"table_of_options": {"a": "x"}},
        {"table_of_lists": {"a": [-1]}},
        {"inner": {"count": -1}},
        {"inners": [{"count": -1}]},
        {"pair": {"number": -1}},
        {"pair": {"digest": "x"}},
    ],
)
def test_value_out_of_its_bounds_is_refused_wherever_it_stands(document: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match=r"must be|expected"):
        parse(document, Everywhere, "a document")


def test_options_may_be_none_or_within_their_bounds() -> None:
    document = {"option": None, "options": [None, DIGEST], "pair": {"digest": DIGEST}, "inner": None}
    found = parse(document, Everywhere, "a document")
    assert (found.option, found.options, found.pair) == (None, (None, DIGEST), Pair(0, DIGEST))

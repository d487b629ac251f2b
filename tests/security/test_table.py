"""docs/security.md claims only what a test holds."""

from __future__ import annotations

import re

import pytest
from harness import ROOT

_ROW = re.compile(r"^\|(?! (?:---|who controls) ).*\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = _ROW.findall((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))


def test_table_has_rows() -> None:
    assert len(ROWS) > 10


@pytest.mark.parametrize("row", ROWS)
def test_row_names_tests_that_exist(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 4, cells
    named = _TEST.findall(cells[-1])
    assert named
    assert len(named) == cells[-1].count("`") // 2
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"

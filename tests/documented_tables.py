"""Tables of docs/models.md, between two comments that name them."""

from __future__ import annotations

from harness import ROOT

PAGE = ROOT / "docs" / "models.md"


def shown(name: str) -> str:
    """The table as the page shows it."""
    _, begin, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- {name}: begin -->\n")
    table, end, _ = rest.partition(f"\n<!-- {name}: end -->")
    assert begin
    assert end
    return table


def write(name: str, table: str) -> None:
    """Replace the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(shown(name), table), encoding="utf-8")

"""Documents that show tables: each between a comment that names it and one that ends it."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks._tables import markdown, read_table

BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BEGIN = "<!-- table: "


def render(text: str, tables: Path) -> str:
    """Return a document with what its tables' files hold.

    Args:
        text: The document.
        tables: Folder of `NAME.json`.

    Raises:
        ValueError: A comment that begins a table has none that ends it.
    """
    names = [match[2] for match in BLOCK.finditer(text)]
    if text.count(BEGIN) != len(names):
        raise ValueError(f"{text.count(BEGIN)} tables begin and {len(names)} end; each needs an <!-- end -->: {names}")

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{_shown(tables / f'{match[2]}.json')}\n{match[3]}"

    return BLOCK.sub(block, text)


def _shown(path: Path) -> str:
    return markdown(read_table(path)) if path.is_file() else "Not measured."


def documents(docs: Path) -> list[Path]:
    """Return the documents of a folder that show tables."""
    return [path for path in sorted(docs.glob("*.md")) if BEGIN in path.read_text(encoding="utf-8")]


def rewrite(docs: Path) -> list[Path]:
    """Write what the files of `docs/benchmarks` hold into the documents of `docs`; return which changed."""
    changed = []
    for path in documents(docs):
        text = path.read_text(encoding="utf-8")
        new = render(text, docs / "benchmarks")
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed

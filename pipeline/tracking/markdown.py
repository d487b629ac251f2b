"""Markdown that shows text of unknown origin as it is: names, paths and metadata from files, runs and servers."""

from __future__ import annotations

import re

_MAX_CHARACTERS = 2000
_MARKUP = re.compile(
    r"[\\`*\[\]<>&#|~!$@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, which no underscore inside a word begins
    r"|:(?=//|[\w+-]+:)|(?<=www)\."  # addresses that renderers turn into links, and :emoji:
    r"|^[-+=]|^\d(?=\d*[.)](?:\s|$))"  # lists and underlined headings
)


def as_markdown(text: str) -> str:
    """Return the Markdown that shows a text literally, in a heading, paragraph, list, table or link.

    Characters that could be markup become character references, which every renderer reads and none as structure.
    """
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", _on_one_line(text))


def as_code(text: str) -> str:
    """Return a code span that shows a text literally, outside of tables and links; paths and JSON stay readable so."""
    line = _on_one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if "`" in line or not line else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _on_one_line(text: str) -> str:
    """Return at most 2,000 characters, line breaks and others that are not printable as Python escapes them."""
    shown = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown.strip())

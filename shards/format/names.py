"""Names of files as text: they are bytes, and Python holds those that are no UTF-8 as lone surrogates."""

from __future__ import annotations


def as_text(name: str) -> str:
    r"""Return a name as every encoder takes it, with lone surrogates escaped, as `\udcff`."""
    return name.encode(errors="backslashreplace").decode()

"""Names of files: bytes, which Python holds as text, those that are no UTF-8 as lone surrogates."""

from __future__ import annotations

import os

from shards.errors import InputError, shown
from shards.secrets import without_secrets

MAX_NAME_BYTES = 255
"""Of a file, on the file systems in use."""
MAX_PATH_BYTES = 4095


def as_text(name: str) -> str:
    r"""Return a name as every encoder takes it, with lone surrogates escaped, as `\udcff`."""
    return name.encode(errors="backslashreplace").decode()


def check_local(text: str) -> None:
    """Refuse what no system call takes: every use of such a path would fail in its own way.

    Raises:
        InputError: The text is too long, or holds a character that no path has.
    """
    fault = None
    try:
        encoded = os.fsencode(text)
        if "\0" in text:
            fault = "holds a NUL character, which no path has"
        elif len(encoded) > MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES:
            fault = f"is too long: names have at most {MAX_NAME_BYTES} bytes, paths {MAX_PATH_BYTES:,}"
    except UnicodeEncodeError:
        fault = "holds half of a character"
    if fault:
        raise InputError(f"the path {shown(without_secrets(text, text))} {fault}")

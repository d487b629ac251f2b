"""Paths as users write them, with `~` and environment variables."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from shards.errors import InputError

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expand(text: str) -> str:
    """Replace a leading `~` and environment variables, as a shell does; a path that exists as written stays as it is.

    Raises:
        InputError: An environment variable is not set.
    """
    if not text.startswith("~") and "$" not in text:
        return text
    with contextlib.suppress(OSError):
        if Path(text).exists():
            return text
    expanded = os.path.expandvars(text)
    if expanded.startswith("~"):
        expanded = os.path.expanduser(expanded)  # noqa: PTH111  # Path would make s3:/ of s3://
    missing = sorted({name.strip("{}") for name in _VARIABLE.findall(text)} - os.environ.keys())
    if missing:
        raise InputError(f"a path names the environment variable {missing[0]}, which is not set; set it")
    return expanded

"""How much memory a weight file may ask for: what it declares is compared with this before anything is allocated."""

from __future__ import annotations

import os

from pipeline.errors import CheckpointError, ConfigError

VARIABLE = "SED_MAX_WEIGHTS_GIB"
"""Environment variable that raises the limit."""
_DEFAULT_GIB = 8.0
# Of the limit: a description (names, shapes, dtypes) of 8 MiB lists some 50,000 tensors.
_DESCRIPTION_FRACTION = 1 / 1024


def memory_limit() -> int:
    """Return the largest number of bytes that one weight file may ask for.

    Raises:
        ConfigError: The variable is set to something that is no positive number.
    """
    text = os.environ.get(VARIABLE, str(_DEFAULT_GIB))
    try:
        limit_bytes = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        limit_bytes = 0
    if limit_bytes <= 0:
        raise ConfigError(f"{VARIABLE}={text} must be a number of GiB above 0, such as 16")
    return limit_bytes


def description_limit() -> int:
    """Return the largest number of bytes that a file may spend on describing its tensors."""
    return int(memory_limit() * _DESCRIPTION_FRACTION)


def check_size(num_bytes: int, limit_bytes: int, what: str) -> None:
    """Refuse a declared size above a limit.

    Raises:
        CheckpointError: Says both, and how to raise the limit.
    """
    if num_bytes > limit_bytes:
        raise CheckpointError(
            f"{what} of {num_bytes / 2**20:,.1f} MiB, more than the limit of {limit_bytes / 2**20:,.1f} MiB; if the "
            f"file is what you expect, raise the limit: {VARIABLE}={2 * memory_limit() / 2**30:g} for twice as much"
        )

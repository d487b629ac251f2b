"""What reading a stranger's document may end in: the data, or a clear error, at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from shards.errors import InputError

MAX_SECONDS = 5.0


@contextlib.contextmanager
def only_clear_errors(what: str) -> Iterator[None]:
    """Swallow an `InputError` of this block; fail for any other error, a long text or a long time."""
    began_s = time.monotonic()
    message = "none"
    try:
        yield
    except InputError as error:
        message = str(error)
    except BaseException as error:
        raise AssertionError(f"{what} ended in {type(error).__name__}: {error}") from error
    assert 0 < len(message) < 6000, what
    assert time.monotonic() - began_s < MAX_SECONDS, what

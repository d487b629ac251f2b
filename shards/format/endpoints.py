"""Whether a service answers at all, within seconds: the clients of stores and servers try for minutes."""

from __future__ import annotations

import functools
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 5.0
"""How long a service may take to accept a connection, and again to answer."""


def check_answers(url: str) -> None:
    """Send one request to a service and wait for any answer, a refusal included.

    Raises:
        ConnectionError: There is none within seconds; names the reason.
    """
    parts = urlsplit(url)
    # Without user and password: this asks only whether somebody is there.
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path or '/'}"
    try:
        urllib.request.urlopen(address, timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # the service's own client knows its certificates, and says better what is wrong
        place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        raise ConnectionError(f"nobody answers at {place} within {ANSWER_TIMEOUT_S:g} s: {reason}") from error


@functools.cache
def check_answers_once(url: str) -> None:
    """Do the same once per process, as long as it succeeds.

    Raises:
        ConnectionError: As above.
    """
    check_answers(url)

"""Checks within seconds that a service responds: the clients of stores and servers retry for minutes."""

from __future__ import annotations

import functools
import socket
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from shards.secrets import without_secrets

ANSWER_TIMEOUT_S = 5.0
"""How long a service may take to accept a connection, and again to respond."""


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: without user, password and query, which a check does not need."""
    parts = urlsplit(without_secrets(url, url))
    return f"{parts.scheme}://{parts.netloc}"


def check_answers(url: str) -> None:
    """Send one request to a service and wait for any response, including an error.

    Raises:
        ConnectionError: There is none within seconds; names the reason.
    """
    parts = urlsplit(without_secrets(url, url))
    address = f"{origin(url)}{parts.path or '/'}"
    try:
        urllib.request.urlopen(address, timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error) if isinstance(error, OSError) else "not a valid address"
        if isinstance(reason, ssl.SSLError):
            return  # the service's own client knows its certificates, and reports the fault better
        raise ConnectionError(f"no response from {parts.netloc} within {ANSWER_TIMEOUT_S:g} s: {reason}") from error


def check_listens(url: str, default_port: int) -> None:
    """Connect to the host of a URL, for services that speak no HTTP; without a host, do nothing.

    Raises:
        ConnectionError: The connection is not accepted within seconds; names the reason.
    """
    parts = urlsplit(without_secrets(url, url))
    if not parts.hostname:
        return  # a socket of this machine, or the client's own default
    try:
        socket.create_connection((parts.hostname, parts.port or default_port), ANSWER_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, OSError) else "not a valid address"
        raise ConnectionError(f"no response from {parts.netloc} within {ANSWER_TIMEOUT_S:g} s: {reason}") from error


check_listens_once = functools.cache(check_listens)


@functools.cache
def check_answers_once(url: str) -> None:
    """Do the same once per process, as long as it succeeds.

    Raises:
        ConnectionError: As above.
    """
    check_answers(url)

"""URLs and errors in the form that may be shown: without user info and without secrets of a query.

The one function that every message, log line and record goes through; what connects to a store or server keeps the URL
as it was given.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_USER_INFO = re.compile(rf"({_SCHEME})[^\s/?#'\"]*@")
# A password with an unescaped slash or question mark: what follows the colon is not a port.
_UNESCAPED = re.compile(rf"({_SCHEME})[^\s/?#@:\['\"]*:(?!\d+(?:[/?#\s'\"]|$))[^\s'\"]*@")
_QUERY = re.compile(rf"({_SCHEME}[^\s?#'\"]*)\?[^\s#'\"]*")
_SECRET_NAMES = "access|auth|credential|key|pass|pwd|secret|sig|token"
# A client's error may show the path of a URL alone.
_NAMED = re.compile(rf"([?&][\w.%-]*(?:{_SECRET_NAMES})[\w.%-]*=)[^\s&#'\")]*", re.IGNORECASE)
_GIVEN = re.compile(
    rf"{_SCHEME}(?P<user_info>[^/?#]*@|[^/?#@:\[]*:(?!\d+(?:[/?#]|$)).*@)?[^?]*(?:\?(?P<query>.*))?", re.S
)
_MIN_SECRET_CHARACTERS = 4


def without_secrets(value: object, *urls: str) -> str:
    """Return the text of a URL, an error or anything else, with secrets of URLs removed.

    User info (`user:password@`) and the query of a URL are removed; in a bare path only the values of parameters whose
    names suggest a secret.

    Args:
        value: What is shown.
        urls: Addresses that were used: a client's error may show a part of one in a form of its own.
    """
    text = str(value)
    for url in urls:
        for secret in _secrets_of(url):
            text = text.replace(secret, "" if secret.endswith("@") else "***")
    text = _UNESCAPED.sub(r"\1", _USER_INFO.sub(r"\1", text))
    return _NAMED.sub(r"\1***", _QUERY.sub(r"\1", text))


def argument_without_secrets(argument: str) -> str:
    """Return one argument of a command, `URL` or `--flag=URL`, with secrets of its URL removed."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{name}{equals}{without_secrets(value, value) if '://' in value else value}"


def command_without_secrets(arguments: Sequence[str]) -> str:
    """Return a command as a shell takes it, with secrets of URLs removed.

    Before it is quoted: a quotation mark or a space inside a password would end the URL in the middle of it.
    """
    return shlex.join(map(argument_without_secrets, arguments))


def _secrets_of(url: str) -> Iterator[str]:
    """Yield the secret parts of a URL, each before its own parts."""
    found = _GIVEN.fullmatch(url)
    if found is None:
        return
    user_info, query = found["user_info"] or "", found["query"] or ""
    if user_info:
        yield user_info
    values = [user_info[:-1].partition(":")[2], query, *(part.partition("=")[2] for part in query.split("&"))]
    for secret in [form for value in values for form in (value, unquote(value))]:
        if len(secret) >= _MIN_SECRET_CHARACTERS:
            yield secret

"""How this project uses MLflow: quietly, and with short timeouts for unreachable servers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.tracking.database import check_server_database, prepare_sqlite
from pipeline.tracking.moved import sqlite_file
from shards.errors import InputError
from shards.format.endpoints import check_answers, check_listens
from shards.format.expansion import expand
from shards.secrets import without_secrets

DEFAULT_STORE = "sqlite:///mlflow.db"
"""Where runs go when MLFLOW_TRACKING_URI is not set: MLflow's own default, a file in the working folder."""

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # its import sets its loggers' level, also where that has been set before
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set unless the user has set them."""

_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_LOCAL = re.compile(r"(?P<start>sqlite(?:\+\w+)?:///|file:(?://)?|)(?P<path>(?!\w+(?:\+\w+)?:).+)")
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def prepare() -> None:
    """Set the defaults and silence the log messages of MLflow's libraries below errors.

    Raises:
        InputError: An address is one that MLflow takes for another, see `check_addresses`.
    """
    check_addresses()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not any(Path("mlruns").glob("*/meta.yaml")):  # else MLflow's default is that folder, which it used to write
        # MLflow would write its path with %20 and the like, and make an empty folder of that name beside this one.
        os.environ.setdefault("MLFLOW_TRACKING_URI", DEFAULT_STORE)
    _move_password()
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_addresses() -> None:
    """Refuse local addresses with `~` or variables: every program of MLflow takes them literally, as a folder `~`.

    Raises:
        InputError: Names the line that was meant.
    """
    for name in _ADDRESSES:
        if match := _LOCAL.fullmatch(os.environ.get(name, "")):
            expanded = expand(match["path"])
            if expanded != match["path"]:
                raise InputError(
                    f"{name}={match[0]} names a path that MLflow does not expand: it would make a folder of that very "
                    f"name; write: export {name}={shlex.quote(match['start'] + expanded)}"
                )


def _move_password() -> None:
    """Move user and password from a server's address, which MLflow prints, to the variables where it looks for them."""
    try:
        parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    except ValueError:
        return  # not an address, which is said where it is used
    user_info, at, host = parts.netloc.rpartition("@")
    if parts.scheme not in {"http", "https"} or not at:
        return
    user, _, password = user_info.partition(":")
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(user))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(password))
    os.environ["MLFLOW_TRACKING_URI"] = parts._replace(netloc=host).geturl()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of MLflow in this block; errors are still raised."""
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_reachable(uri: str) -> None:
    """Check that a tracking URI can be used: MLflow would retry for minutes, or upgrade a database silently.

    A SQLite file that is missing is created.

    Raises:
        ConnectionError: There is no response within seconds, or a database cannot be used; names the reason.
        DatabaseVersionError: Another version of MLflow made the database.
        InputError: The driver of a database is not installed.
    """
    scheme = urlsplit(uri).scheme
    if scheme in {"http", "https"}:
        check_answers(f"{uri.rstrip('/')}/health")
    elif path := sqlite_file(uri):
        prepare_sqlite(uri, path)
    elif port := _DATABASE_PORTS.get(scheme.partition("+")[0]):
        check_listens(uri, port)
        check_server_database(uri)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text; its type where the text is empty."""
    text = without_secrets(error, os.environ.get("MLFLOW_TRACKING_URI", ""))
    return text.splitlines()[0] if text.strip() else type(error).__name__

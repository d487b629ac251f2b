"""How this project uses MLflow: quietly, and with short timeouts for unreachable servers."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.tracking.moved import sqlite_file
from shards.format.endpoints import ANSWER_TIMEOUT_S, check_answers, check_listens
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
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # its import sets its loggers' level, also where that has been set before
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set unless the user has set them."""

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def prepare() -> None:
    """Set the defaults and silence the log messages of MLflow's libraries below errors."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not any(Path("mlruns").glob("*/meta.yaml")):  # else MLflow's default is that folder, which it used to write
        # MLflow would write its path with %20 and the like, and make an empty folder of that name beside this one.
        os.environ.setdefault("MLFLOW_TRACKING_URI", DEFAULT_STORE)
    _move_password()
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
    """Check that a server responds at a tracking URI: MLflow itself would retry for minutes.

    Raises:
        ConnectionError: There is no response within seconds, or a SQLite file cannot be used; names the reason.
    """
    scheme = urlsplit(uri).scheme
    if scheme in {"http", "https"}:
        check_answers(f"{uri.rstrip('/')}/health")
    elif path := sqlite_file(uri):
        _check_sqlite(path)
    elif port := _DATABASE_PORTS.get(scheme.partition("+")[0]):
        check_listens(uri, port)


def _check_sqlite(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=ANSWER_TIMEOUT_S)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        if "locked" not in str(error):
            raise ConnectionError(f"{path.resolve()} cannot be used as a database: {error}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text; its type where the text is empty."""
    text = without_secrets(error, os.environ.get("MLFLOW_TRACKING_URI", ""))
    return text.splitlines()[0] if text.strip() else type(error).__name__

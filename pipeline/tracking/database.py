"""MLflow's tables in a database: created by one process, and used only by the version of MLflow that they are for.

MLflow creates the tables of a missing SQLite file in every process that finds none, and all but one of them fail. It
upgrades an older database silently, after which the MLflow that made it cannot open it, and for a newer one it
advises a command that fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import importlib.resources
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.moved import sqlite_file
from shards.errors import InputError
from shards.format.endpoints import ANSWER_TIMEOUT_S
from shards.secrets import without_secrets

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


class DatabaseVersionError(InputError):
    """A database was made by another version of MLflow; the message says what to upgrade, and how."""


def prepare_sqlite(uri: str, path: Path) -> None:
    """Create the folder, the file and MLflow's tables where they are missing, in one process at a time.

    Args:
        uri: Tracking URI.
        path: Its file.

    Raises:
        ConnectionError: The file cannot be used as a database; names the reason.
        DatabaseVersionError: Another version of MLflow made it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _sqlite_revision(path) == _migrations().get_current_head():
            return
        with locked(path):  # a process that creates the tables is waited for
            if _sqlite_revision(path) is None:
                _create_tables(uri)
            _check_revision(uri, _sqlite_revision(path))
    except (OSError, sqlite3.Error) as error:
        if "locked" not in str(error):  # a database that is written to is a good one
            raise ConnectionError(f"{path.resolve()} cannot be used as a database: {error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a SQLite file: one process at a time enters this block, which must not be nested."""
    # A lock file of its own: POSIX locks on the database itself are lost when any handle of it is closed.
    with path.with_name(f"{path.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create_tables(uri: str) -> None:
    import mlflow

    mlflow.MlflowClient(uri).search_experiments(max_results=1)


def _sqlite_revision(path: Path) -> str | None:
    with contextlib.closing(sqlite3.connect(path, timeout=ANSWER_TIMEOUT_S)) as database:
        has_tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = database.execute("SELECT version_num FROM alembic_version").fetchone() if has_tables else None
    return None if row is None else row[0]


@functools.cache
def check_server_database(uri: str) -> None:
    """Check once per process that MLflow can use the database of a server such as PostgreSQL.

    Raises:
        ConnectionError: The server refuses the connection; names the reason.
        DatabaseVersionError: Another version of MLflow made the tables.
        InputError: Its driver is not installed.
    """
    import sqlalchemy
    from alembic.migration import MigrationContext
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    except ModuleNotFoundError as error:
        raise InputError(
            f"{without_secrets(uri)} requires the package {error.name}, which is not installed; for PostgreSQL: "
            "pip install 'psycopg[binary]', and an address that begins with postgresql+psycopg://"
        ) from error
    except SQLAlchemyError as error:
        reason = without_secrets(getattr(error, "orig", error), uri).strip().splitlines()[0]
        raise ConnectionError(f"{without_secrets(uri)} cannot be used as a database: {reason}") from error
    if revision is not None:  # MLflow creates the tables of an empty database
        _check_revision(uri, revision)


@functools.cache
def _migrations() -> ScriptDirectory:
    """Return the changes of MLflow's tables that the installed version knows."""
    from alembic.script import ScriptDirectory

    package = importlib.resources.files("mlflow")
    return ScriptDirectory(str(package / "store" / "db_migrations"))


def _check_revision(uri: str, revision: str | None) -> None:
    head, version = _migrations().get_current_head(), importlib.metadata.version("mlflow")
    if revision == head:
        return
    shown = without_secrets(uri)
    if revision in {known.revision for known in _migrations().walk_revisions()}:
        address = uri if shown == uri else '"$MLFLOW_TRACKING_URI"'
        raise DatabaseVersionError(
            f"{shown} was made by an older MLflow: its tables are of revision {revision}, and MLflow {version} "
            f"requires {head}. End what uses it, {_backup(uri)}, and upgrade it: mlflow db upgrade {address}"
        )
    raise DatabaseVersionError(
        f"{shown} was made by a newer MLflow: MLflow {version} does not know revision {revision} of its tables, and "
        "there is no way back. Install the version that made it (pip install --upgrade mlflow for the newest), or set "
        "MLFLOW_TRACKING_URI to another database"
    )


def _backup(uri: str) -> str:
    path = sqlite_file(uri)
    return "back it up (pg_dump)" if path is None else f"copy the file: cp {path} {path}.backup"

"""Databases as other versions of MLflow leave them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import mlflow.store.db.utils as mlflow_databases
import sqlalchemy
from alembic import command
from mlflow.store.tracking.dbmodels.initial_models import Base

OLDER = "75868b020152"
"""A revision before the one of the installed version, which has a table less."""
NEWER = "ffffffffffff"


def write_older(path: Path) -> str:
    """Write a SQLite database of an older revision, by MLflow's own steps to it; return its URI."""
    uri = f"sqlite:///{path}"
    configuration = mlflow_databases._get_alembic_config(uri)
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, OLDER)
    engine.dispose()
    return uri


def write_newer(path: Path, empty_database: Path) -> str:
    """Write a SQLite database of a revision that nobody knows yet; return its URI."""
    shutil.copyfile(empty_database, path)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (NEWER,))
    return f"sqlite:///{path}"

"""A project that was renamed or copied: MLflow's SQLite file keeps absolute paths of artifacts.

Readers look for the artifacts beside the database as it is now; writers correct the database first, or a copy of a
project would write its artifacts into the original.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from pathlib import Path
from urllib.parse import unquote

_LOG = logging.getLogger(__name__)
_ARTIFACTS = "/mlruns/"
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)")
_FILE = "file://"


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite tracking URI; None for a server or another database.

    MLflow decodes %20 and the like in the path, and writes its default so.
    """
    match = _SQLITE.match(tracking_uri)
    return Path(unquote(match["path"])) if match else None


def find_moves(tracking_uri: str) -> dict[str, str]:
    """Return former project folders, as the database names them, to where their artifacts are now, beside it."""
    path = sqlite_file(tracking_uri)
    if path is None or not path.is_file():
        return {}
    here = path.resolve().parent
    moves = {}
    for location in _locations(path):
        root, found, tail = location.removeprefix(_FILE).rpartition(_ARTIFACTS)
        if found and Path(root).resolve() != here and (here / "mlruns" / tail).is_dir():
            prefix = _FILE if location.startswith(_FILE) else ""
            moves[prefix + root + _ARTIFACTS] = f"{prefix}{here}{_ARTIFACTS}"
    return moves


def _locations(path: Path) -> list[str]:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("SELECT artifact_location FROM experiments") if row[0]]
    return []  # no tables yet, or not a database: MLflow's own error is clearer


def current_location(tracking_uri: str, location: str) -> str:
    """Return where the files at a location in the database are now."""
    for old, new in find_moves(tracking_uri).items():
        if location.startswith(old):
            return new + location.removeprefix(old)
    return location


def correct_paths(tracking_uri: str) -> None:
    """Correct the paths in the database of a project that was moved, and log it."""
    path = sqlite_file(tracking_uri)
    for old, new in find_moves(tracking_uri).items():
        with contextlib.closing(sqlite3.connect(str(path))) as database, database:
            for table, column in _COLUMNS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old), old),
                )
        _LOG.warning("the project moved from %s to %s: corrected the paths in %s", old, new, path)

"""A project whose folder was renamed, with its database and its artifacts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
from harness import photo
from tracked_runs import open_run

from pipeline.tracking.moved import find_moves


def test_project_when_it_was_renamed_corrects_its_database_and_keeps_its_artifacts(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    before, after = tmp_path / "proj's 100%", tmp_path / "re named ö"
    # Relative, as the default is; of this test alone, for MLflow keeps an open database by its URI, not by its folder.
    database = f"{tmp_path.name}.db"
    before.mkdir()
    shutil.copyfile(empty_database, before / database)
    monkeypatch.chdir(before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    first = open_run()
    first.picture("a", photo(0, 8, 8), 4)
    first.close("KILLED")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(before, after)  # a copy: the original must not be written to
    mlflow.tracking._tracking_service.utils._artifact_repos_cache.clear()  # as in the process of a later call
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{quote(str(after / database))}")
    monkeypatch.chdir(after)
    again = open_run()
    again.picture("a", photo(0, 8, 8), 8)
    again.close("FINISHED")
    assert again.run_id == first.run_id
    (warning,) = warnings()
    assert f"moved from {before}/mlruns/ to {after}/mlruns/" in warning
    assert (len(list(after.rglob("a*.png"))), len(list(before.rglob("a*.png")))) == (2, 1)
    assert find_moves(os.environ["MLFLOW_TRACKING_URI"]) == {}
    assert not (tmp_path / quote(before.name)).exists()

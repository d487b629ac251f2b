"""One empty MLflow database, copied for every test: building its tables takes seconds; a registry with one version.

And the warnings of a run.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        # The default experiment keeps its artifacts where the working folder was when its row was made.
        patch.chdir(folder)
        MlflowClient(f"sqlite:///{folder / 'empty.db'}").search_experiments()
    return folder / "empty.db"


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of the test's own, in its own folder."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Call it for the warnings of this package so far; those of libraries are not ours."""
    caplog.set_level(logging.WARNING, "pipeline")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]


@pytest.fixture(scope="session")
def registered(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose registry has one version, which takes seconds to make."""
    from served_versions import register_served

    folder = tmp_path_factory.mktemp("served")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter_registry(folder, patch)
        register_served(folder)
    return folder


@pytest.fixture(scope="module")
def served_folder(registered: Path) -> Iterator[Path]:
    """That folder, as the working folder and the store of a module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        enter_registry(registered, patch)
        yield registered


def enter_registry(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

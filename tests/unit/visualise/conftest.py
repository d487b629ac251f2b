"""The job on a few photos, in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import write_photos

import jobs.visualise
from jobs.terminal import run_job


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three photos, the first of which is too small for a crop of 48 px."""
    return write_photos(tmp_path_factory.mktemp("sets") / "photos" / "HR", [(40, 60), (100, 150), (120, 100)]).parent


@pytest.fixture
def visualise(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the job in an empty folder, on the photos, without MLflow and with few cells."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        settings = ["--sets", str(photos), "--cells", "60", "--classes", "3", "--no-mlflow"]
        try:
            return run_job(jobs.visualise.main, [*settings, *map(str, arguments)])
        except SystemExit as left:  # a bad flag ends the process
            return int(left.code or 0)

    return run

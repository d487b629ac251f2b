"""Bad input, job by job: exit code 2, a text that helps, no traceback, and nothing left behind.

Most tests run a job's `main` in this process, as its `__main__` does; `test_from_a_shell.py` starts jobs as users do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Main, prepare_tiny_data, write_preset

import jobs.ray_tasks
import jobs.ui
from jobs.terminal import run_job


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards, a validation set and a preset; nobody writes to them."""
    folder = tmp_path_factory.mktemp("prepared")
    write_preset(prepare_tiny_data(folder), folder / "preset.json")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an MLflow server that is not there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return folder


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was started for bad input")

    monkeypatch.setattr(jobs.ray_tasks, "ray_session", refuse)
    for name in ("execv", "execve"):
        monkeypatch.setattr(jobs.ui.os, name, refuse)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): b"folder" for path in folder.rglob("*") if path.is_dir()
    }


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], here: Path, prepared: Path) -> Callable[..., None]:
    """Run a job that must refuse; checks code, screen and that the working folder and the data are as they were."""

    def check(main: Main, arguments: list[str], *words: str) -> None:
        before = everything(here), everything(prepared)
        try:
            code = run_job(main, arguments)
        except SystemExit as left:  # tyro ends the process itself
            code = left.code
        captured = capsys.readouterr()
        text = " ".join((captured.out + captured.err).replace("│", " ").split())
        assert code == 2, text
        assert "Traceback" not in text
        assert len(captured.err.splitlines()) <= 24, captured.err
        for word in words:
            assert word in text, f"{word!r} is not in: {text}"
        assert (everything(here), everything(prepared)) == before

    return check

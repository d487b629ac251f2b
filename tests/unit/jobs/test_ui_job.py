"""The UI's job: what it says, and the stores that it refuses before a server starts."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import job, job_environment
from other_mlflow import write_older

import jobs.ui
from jobs.terminal import EXIT_BAD_INPUT, run_job

PAGE = "/#/experiments?workflowType=machine_learning"


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A server that responds, which is all that the job looks at."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def health(process: subprocess.Popen[str], port: int) -> bytes:
    """What the UI says once it responds; nothing if it ends before."""
    while process.poll() is None:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).read()
        except OSError:
            time.sleep(0.2)
    return b""


def test_ui_says_how_it_is_reached_and_is_there(tmp_path: Path, closed_port: int) -> None:
    command = [sys.executable, job("ui.py"), "--port", str(closed_port)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=job_environment(tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
        assert lines[1] == f"UI: http://127.0.0.1:{closed_port}{PAGE}  (Ctrl-C ends it)\n"
        assert "Model training" in lines[2]
        assert f"ssh -L {closed_port}:127.0.0.1:{closed_port} USER@HOST" in lines[3]
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would stop the server
        assert health(process, closed_port) == b"OK"
    finally:
        process.terminate()
        process.wait(30)


def test_ui_that_listens_on_the_network_does_not_advise_a_tunnel() -> None:
    assert jobs.ui.reach(jobs.ui.UiConfig(host="0.0.0.0")) == ""


def test_store_that_is_a_server_is_named_as_the_ui(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", "//me:c4n4ry@"))
    assert run_job(jobs.ui.main, []) == 0
    assert (
        capsys.readouterr().err
        == f"MLFLOW_TRACKING_URI is a server, which has a UI of its own: {server}{PAGE}\n{jobs.ui.MODE}\n"
    )


def test_store_that_is_a_server_that_does_not_respond_is_refused(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    assert run_job(jobs.ui.main, []) == EXIT_BAD_INPUT
    assert f"cannot be opened: no response from 127.0.0.1:{closed_port}" in capsys.readouterr().err


def test_database_of_an_older_mlflow_is_refused_with_the_command_that_upgrades_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = write_older(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run_job(jobs.ui.main, []) == EXIT_BAD_INPUT
    text = capsys.readouterr().err
    assert "was made by an older MLflow" in text
    assert f"mlflow db upgrade {uri}" in text
    assert "Traceback" not in text

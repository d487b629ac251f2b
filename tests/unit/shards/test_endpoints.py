"""An unreachable service is named within seconds, whatever its own client would do."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest
import s3fs

from shards.format.endpoints import check_answers
from shards.format.remote import RemotePath


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # A client keeps the endpoint of its first use, which may be another test's.
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_store_when_nobody_listens_is_named_at_once(
    s3: None, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
    with pytest.raises(OSError, match=f"no response from 127.0.0.1:{closed_port}") as caught:
        RemotePath("s3://unreachable-bucket/shards/manifest.json").read_bytes()
    assert caught.value.filename == "s3://unreachable-bucket/shards/manifest.json"


def test_service_that_never_answers_is_named_within_seconds(silent_port: int) -> None:
    start_s = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no response from .* within 5 s: timed out"):
        check_answers(f"http://127.0.0.1:{silent_port}")
    assert time.monotonic() - start_s < 20


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


def test_service_that_refuses_is_there() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check_answers(f"http://user:password@127.0.0.1:{server.server_port}/health")
        server.shutdown()


def test_name_that_leads_nowhere_is_named_without_the_password() -> None:
    with pytest.raises(ConnectionError, match=r"no response from nowhere\.invalid") as caught:
        check_answers("http://user:password@nowhere.invalid/health")
    assert "password" not in str(caught.value)

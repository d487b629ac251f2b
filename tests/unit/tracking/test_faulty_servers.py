"""No server or database, however faulty, stops a run or delays it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import photo
from mlflow import MlflowClient
from tracked_runs import open_run

import pipeline.tracking.runs
from pipeline.tracking import NullTracker
from pipeline.tracking.environment import DEFAULTS, check_reachable, prepare


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def test_server_when_unreachable_gives_a_null_tracker_quickly_with_one_warning(
    closed_port: int, impatient: None, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    start_s = time.monotonic()
    tracker = open_run()
    assert time.monotonic() - start_s < 30
    assert isinstance(tracker, NullTracker)
    assert tracker.run_id is None
    tracker.metrics({"loss": 1.0}, 4)
    tracker.picture("a", photo(0, 4, 4), 4)
    tracker.file(Path("none"))
    tracker.close("FINISHED")
    (warning,) = warnings()
    assert "MLflow cannot be reached" in warning
    assert "metrics.jsonl" in warning


def test_server_when_it_never_answers_gives_a_null_tracker_in_bounded_time(
    silent_port: int, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_port}")
    start_s = time.monotonic()
    assert isinstance(open_run(), NullTracker)
    assert time.monotonic() - start_s < 20


def test_server_when_its_error_says_nothing_still_gives_a_null_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(pipeline.tracking.runs, "Tracker", refuse)
    assert isinstance(open_run(), NullTracker)


@pytest.mark.parametrize(
    "uri", ["postgresql://user@127.0.0.1:{port}/db", "mysql+pymysql://127.0.0.1:{port}/db", "http://127.0.0.1:{port}"]
)
def test_store_when_its_address_is_unreachable_is_named_at_once(uri: str, closed_port: int) -> None:
    start_s = time.monotonic()
    with pytest.raises(ConnectionError):
        check_reachable(uri.format(port=closed_port))
    assert time.monotonic() - start_s < 10


def test_sqlite_file_when_it_is_not_a_database_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, and long enough to be looked at" * 9)
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "mlflow.db", tmp_path / "file" / "mlflow.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        start_s = time.monotonic()
        assert isinstance(open_run(), NullTracker)
        assert time.monotonic() - start_s < 10
    assert ["cannot be used as a database" in line for line in warnings()] == [True, True]


def test_server_when_it_becomes_unreachable_never_raises_and_warns_once(
    store: str,
    closed_port: int,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    tracker = open_run()
    unreachable = MlflowClient(f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(tracker, "_client", unreachable)
    for images_seen in range(3):
        tracker.metrics({"generator/pixel": 0.5}, images_seen)
    tracker.picture("validation/a", photo(0, 8, 8), 3)
    tracker.file(Path("does/not/exist"))
    start_s = time.monotonic()
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 30
    (warning,) = warnings()
    assert "MLflow does not accept the metrics" in warning


def test_server_when_it_becomes_unreachable_is_not_waited_for_at_the_end(
    store: str, silent_port: int, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_CLOSE_TIMEOUT_S", 600.0)
    tracker = open_run()
    monkeypatch.setattr(tracker, "_client", MlflowClient(f"http://127.0.0.1:{silent_port}"))
    tracker.metrics({"generator/pixel": 0.5}, 4)
    while not tracker._is_unreachable:
        time.sleep(0.05)
    start_s = time.monotonic()
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 10


class Stuck:
    """A client whose calls block until released."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def log_batch(self, *_: object, **__: object) -> None:
        self.calls += 1
        self.go.wait(30)

    def set_terminated(self, *_: object) -> None:
        self.calls += 1


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    client = Stuck()
    yield client
    client.go.set()


def test_queue_when_full_drops_and_warns_but_never_waits(
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_QUEUE_LENGTH", 5)
    tracker = open_run()
    monkeypatch.setattr(tracker, "_client", stuck)
    start_s = time.monotonic()
    for images_seen in range(50):
        tracker.metrics({"generator/pixel": 0.5}, images_seen)
    assert time.monotonic() - start_s < 5
    (warning,) = warnings()
    assert "its queue is full" in warning
    stuck.go.set()
    tracker.close("FINISHED")
    assert stuck.calls < 12


def test_close_when_the_server_hangs_waits_a_bounded_time(
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_CLOSE_TIMEOUT_S", 0.2)
    tracker = open_run()
    monkeypatch.setattr(tracker, "_client", stuck)
    tracker.metrics({"generator/pixel": 0.5}, 4)
    start_s = time.monotonic()
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 5


def test_environment_when_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    prepare()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == DEFAULTS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]

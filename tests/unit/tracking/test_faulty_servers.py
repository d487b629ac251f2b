"""No server or database, however faulty, stops a run or delays it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import photo
from tracked_runs import open_run

import pipeline.tracking.delivery
from pipeline.tracking.environment import DEFAULTS, check_reachable, prepare
from pipeline.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def test_server_when_unreachable_delays_nothing_and_costs_one_warning(
    closed_port: int,
    impatient: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    start_s = time.monotonic()
    tracker = open_run(tmp_path / "run")
    tracker.metrics({"loss": 1.0}, 4)
    tracker.picture("a", photo(0, 4, 4), 4)
    tracker.file(Path("none"))
    assert time.monotonic() - start_s < 1
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 30
    assert tracker.run_id == ""
    (warning,) = warnings()
    assert "mlflow cannot be reached" in warning
    assert "the run folder has everything" in warning


def test_server_when_it_never_answers_is_waited_for_neither_at_the_start_nor_at_the_end(
    silent_port: int, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_port}")
    start_s = time.monotonic()
    tracker = open_run(tmp_path / "run")
    assert time.monotonic() - start_s < 1
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 20


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
        open_run(tmp_path / "run").close("FINISHED")
        assert time.monotonic() - start_s < 10
    assert ["cannot be used as a database" in line for line in warnings()] == [True, True]


class Stuck:
    """Calls that block until released."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def __call__(self, *_: object, **__: object) -> None:
        self.calls += 1
        self.go.wait(30)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """A server that takes a batch of numbers and never responds."""
    calls = Stuck()
    monkeypatch.setattr(MlflowTracker, "_log_metrics", calls)
    yield calls
    calls.go.set()


def test_numbers_that_a_hanging_server_does_not_take_are_not_held_in_memory(
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(pipeline.tracking.delivery, "_MAX_HELD_REPORTS", 5)
    tracker = open_run()
    tracker.metrics({"generator/pixel": 0.5}, 0)
    while not stuck.calls:
        time.sleep(0.01)
    start_s = time.monotonic()
    for images_seen in range(1, 50):
        tracker.metrics({"generator/pixel": 0.5}, images_seen)
    assert time.monotonic() - start_s < 5
    (member,) = tracker.trackers._members
    assert len(member._delivery._reports or ()) <= 6
    monkeypatch.undo()
    stuck.go.set()
    tracker.close("FINISHED")
    assert warnings() == []


def test_close_when_the_server_hangs_waits_a_bounded_time(
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.delivery, "CLOSE_TIMEOUT_S", 0.2)
    tracker = open_run()
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

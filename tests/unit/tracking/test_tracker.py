"""What a run leaves in MLflow, and that no server, however ill, ever stops it."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from harness import photo
from mlflow import MlflowClient
from PIL import Image

import pipeline.tracking.runs
from pipeline.tracking import NullTracker, Tracker, open_tracker
from pipeline.tracking.environment import DEFAULTS, check_reachable, prepare
from pipeline.tracking.moved import find_moves
from pipeline.tracking.names import metric_name, picture_name, title

PARAMETERS = {"seed": 3, "data.shards": "s" * 900}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "pipeline")
    return caplog


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]


def open_one(run_id: str | None = None) -> Tracker | NullTracker:
    return open_tracker("sed tests", "first", run_id, PARAMETERS, {"image_manifest": "abc"})


def test_run_when_closed_can_be_read_back(store: str, tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    (tmp_path / "generator.safetensors").write_bytes(b"weights")
    tracker = open_one()
    tracker.metrics({"generator/pixel": 0.5, "validation/psnr_y": 27.5}, 4)
    tracker.metrics({"generator/pixel": 0.25}, 8)
    tracker.picture("validation/chelsea", photo(0, 20, 30), 8)
    tracker.file(tmp_path / "generator.safetensors")
    tracker.close("FINISHED")
    client = MlflowClient(store)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert client.get_experiment(run.info.experiment_id).name == "sed tests"
    assert run.data.params == {"seed": "3", "data.shards": "s" * 500}
    assert run.data.tags["image_manifest"] == "abc"
    history = client.get_metric_history(tracker.run_id, "generator/pixel")
    assert [(point.step, point.value) for point in history] == [(4, 0.5), (8, 0.25)]
    assert run.data.metrics["validation/psnr_y"] == 27.5
    names = {item.path for item in client.list_artifacts(tracker.run_id)}
    assert names == {"generator.safetensors", "images"}
    pictures = [item.path for item in client.list_artifacts(tracker.run_id, "images")]
    assert any("chelsea" in path for path in pictures)
    assert ours(warnings) == []


def test_run_when_resumed_keeps_its_id(store: str) -> None:
    first = open_one()
    first.metrics({"generator/pixel": 0.5}, 4)
    first.close("KILLED")
    second = open_one(first.run_id)
    assert second.run_id == first.run_id
    second.metrics({"generator/pixel": 0.25}, 8)
    second.close("FINISHED")
    client = MlflowClient(store)
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(first.run_id, "generator/pixel")] == [4, 8]


def test_run_when_the_server_forgot_it_begins_anew_with_a_warning(
    store: str, warnings: pytest.LogCaptureFixture
) -> None:
    tracker = open_one("0" * 32)
    assert tracker.run_id not in (None, "0" * 32)
    tracker.close("FINISHED")
    (warning,) = ours(warnings)
    assert "does not know run 000" in warning


def test_server_when_unreachable_gives_a_null_tracker_quickly_with_one_warning(
    impatient: None, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    start_s = time.monotonic()
    tracker = open_one()
    assert time.monotonic() - start_s < 30
    assert isinstance(tracker, NullTracker)
    assert tracker.run_id is None
    tracker.metrics({"loss": 1.0}, 4)
    tracker.picture("a", photo(0, 4, 4), 4)
    tracker.file(Path("none"))
    tracker.close("FINISHED")
    (warning,) = ours(warnings)
    assert "MLflow cannot be reached" in warning
    assert "metrics.jsonl" in warning


class SilentServer:
    """Takes connections and never answers, as a hanging server does."""

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self._socket.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for held in self._held:
            held.close()


def test_server_when_it_never_answers_gives_a_null_tracker_in_bounded_time(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SilentServer() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        start_s = time.monotonic()
        assert isinstance(open_one(), NullTracker)
        assert time.monotonic() - start_s < 20


def test_server_when_it_dies_later_never_raises_and_warns_once(
    store: str, impatient: None, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    tracker = open_one()
    dead = MlflowClient(f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr(tracker, "_client", dead)
    for images_seen in range(3):
        tracker.metrics({"generator/pixel": 0.5}, images_seen)
    tracker.picture("validation/a", photo(0, 8, 8), 3)
    tracker.file(Path("does/not/exist"))
    start_s = time.monotonic()
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 30
    (warning,) = ours(warnings)
    assert "MLflow does not take the metrics" in warning


class Stuck:
    """A client whose calls wait until they are let go."""

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
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_QUEUE_LENGTH", 5)
    tracker = open_one()
    monkeypatch.setattr(tracker, "_client", stuck)
    start_s = time.monotonic()
    for images_seen in range(50):
        tracker.metrics({"generator/pixel": 0.5}, images_seen)
    assert time.monotonic() - start_s < 5
    (warning,) = ours(warnings)
    assert "its queue is full" in warning
    stuck.go.set()
    tracker.close("FINISHED")
    assert stuck.calls < 12


def test_close_when_the_server_hangs_waits_a_bounded_time(
    store: str, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_CLOSE_TIMEOUT_S", 0.2)
    tracker = open_one()
    monkeypatch.setattr(tracker, "_client", stuck)
    tracker.metrics({"generator/pixel": 0.5}, 4)
    start_s = time.monotonic()
    tracker.close("FINISHED")
    assert time.monotonic() - start_s < 5


def test_picture_when_logged_is_the_picture(store: str, tmp_path: Path) -> None:
    image = photo(3, 16, 24)
    tracker = open_one()
    tracker.picture("set/name", image, 8)
    tracker.close("FINISHED")
    client = MlflowClient(store)
    (path,) = [
        item.path
        for item in client.list_artifacts(tracker.run_id, "images")
        if item.path.endswith(".png") and "compressed" not in item.path
    ]
    downloaded = client.download_artifacts(tracker.run_id, path, str(tmp_path))
    assert np.array_equal(np.asarray(Image.open(downloaded)), image)


def test_environment_when_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    prepare()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == DEFAULTS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


def test_server_when_its_error_says_nothing_still_gives_a_null_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(pipeline.tracking.runs, "Tracker", refuse)
    assert isinstance(open_one(), NullTracker)


def test_run_when_resumed_after_a_kill_sends_each_position_once_and_what_was_missed(store: str) -> None:
    first = open_one()
    first.metrics({"generator/pixel": 0.5, "generator/total": 0.7}, 4)
    first.metrics({"generator/pixel": 0.25}, 12)  # the kill comes before the rest of it
    first.close("KILLED")
    # The run resumes at 8 images, of which the server missed the report.
    record = [(4, {"generator/pixel": 0.5, "generator/total": 0.7}), (8, {"generator/pixel": 0.4})]
    second = open_tracker("sed tests", "first", first.run_id, PARAMETERS, {"backend": "DDP"}, record)
    second.metrics({"generator/pixel": 0.25, "generator/total": 0.35}, 12)
    second.metrics({"generator/pixel": 0.125}, 16)
    second.close("FINISHED")
    client = MlflowClient(store)
    history = client.get_metric_history(first.run_id, "generator/pixel")
    assert sorted((point.step, point.value) for point in history) == [(4, 0.5), (8, 0.4), (12, 0.25), (16, 0.125)]
    assert [point.step for point in client.get_metric_history(first.run_id, "generator/total")] == [4, 12]
    assert client.get_run(first.run_id).data.tags["backend"] == "DDP"


def test_names_that_mlflow_refuses_are_mapped_and_stay_distinct(store: str, warnings: pytest.LogCaptureFixture) -> None:
    names = [
        "Set5 (x4)/psnr_y",
        "Set5 [x4]/psnr_y",
        "../val/psnr_y",
        "val//psnr_y",
        "w" * 300,
        "日本/psnr_y",
        "a:b",
        "",
    ]
    tracker = open_tracker("sed tests", "first", None, {"a=b": 1, "a+b": 2}, {"launch.TORCH(X)": "v" * 9000})
    tracker.metrics({name: float(number) for number, name in enumerate(names)}, 4)
    for name in names:
        tracker.picture(name, photo(0, 8, 8), 4)
    tracker.close("FINISHED")
    data = MlflowClient(store).get_run(tracker.run_id).data
    assert ours(warnings) == []
    assert {name: data.metrics[metric_name(name)] for name in names} == {name: float(n) for n, name in enumerate(names)}
    assert metric_name("日本/psnr_y") == "日本/psnr_y"
    assert len({picture_name(name) for name in names}) == len(names)
    assert {data.params[metric_name(name)] for name in ("a=b", "a+b")} == {"1", "2"}
    assert len(MlflowClient(store).list_artifacts(tracker.run_id, "images")) == 2 * len(names)


def test_value_that_mlflow_refuses_does_not_take_the_batch_with_it(
    store: str, warnings: pytest.LogCaptureFixture
) -> None:
    tracker = open_one()
    values: dict[str, Any] = {"good": 1.0, "bad": "no number", "also good": 2.0}
    tracker.metrics(values, 4)
    tracker.close("FINISHED")
    assert MlflowClient(store).get_run(tracker.run_id).data.metrics == {"good": 1.0, "also good": 2.0}
    (warning,) = ours(warnings)
    assert "bad: " in warning


@pytest.mark.parametrize(
    ("experiment", "run_name"), [("", " "), ("e" * 600, "日" * 300), ("a\0b", "a\nb"), ("caf\udce9", "caf\udce9")]
)
def test_experiment_and_run_of_a_refused_name_are_mapped_and_stay_distinct(
    experiment: str, run_name: str, store: str, warnings: pytest.LogCaptureFixture
) -> None:
    trackers = [open_tracker(experiment + end, run_name + end, None, PARAMETERS, {}) for end in ("", "1")]
    for tracker in trackers:
        tracker.close("FINISHED")
    assert ours(warnings) == []
    client = MlflowClient(store)
    runs = [client.get_run(tracker.run_id) for tracker in trackers]
    names = {client.get_experiment(run.info.experiment_id).name for run in runs}
    assert names == {title(experiment), title(experiment + "1")}
    assert len(names) == 2
    assert [run.info.run_name for run in runs] == [title(run_name), title(run_name + "1")]


def test_values_that_no_database_stores_cost_neither_the_run_nor_other_values(
    store: str, warnings: pytest.LogCaptureFixture
) -> None:
    undecodable = os.fsdecode(b"runs/caf\xe9")
    tracker = open_tracker("tests", "first", None, {"run_dir": undecodable, "seed": 3}, {"a": "1\0", "b": undecodable})
    tracker.metrics({"generator/pixel": 0.5}, 4)
    tracker.close("FINISHED")
    assert ours(warnings) == []
    data = MlflowClient(store).get_run(tracker.run_id).data
    assert data.params == {"run_dir": "runs/caf?", "seed": "3"}
    assert (data.tags["a"], data.tags["b"]) == ("1?", "runs/caf?")
    assert data.metrics == {"generator/pixel": 0.5}


def test_metrics_in_a_folder_have_names_that_its_file_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    names = ["日" * 200, "日" * 201, "w" * 251, "val/psnr_y"]
    tracker = open_one()
    tracker.metrics({name: float(number) for number, name in enumerate(names)}, 4)
    tracker.close("FINISHED")
    assert ours(warnings) == []
    data = MlflowClient(f"file://{tmp_path / 'mlruns'}").get_run(tracker.run_id).data
    assert data.metrics == {metric_name(name): float(number) for number, name in enumerate(names)}


@pytest.mark.parametrize(
    "uri", ["postgresql://user@127.0.0.1:{port}/db", "mysql+pymysql://127.0.0.1:{port}/db", "http://127.0.0.1:{port}"]
)
def test_store_when_its_address_is_dead_is_named_at_once(uri: str) -> None:
    start_s = time.monotonic()
    with pytest.raises(ConnectionError):
        check_reachable(uri.format(port=closed_port()))
    assert time.monotonic() - start_s < 10


def test_sqlite_file_when_it_is_no_database_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, and long enough to be looked at" * 9)
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "mlflow.db", tmp_path / "file" / "mlflow.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        start_s = time.monotonic()
        assert isinstance(open_one(), NullTracker)
        assert time.monotonic() - start_s < 10
    assert all("cannot be used as a database" in line for line in ours(warnings))


def test_server_when_it_dies_later_is_not_waited_for_at_the_end(
    store: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.runs, "_CLOSE_TIMEOUT_S", 600.0)
    with SilentServer() as port:
        tracker = open_one()
        monkeypatch.setattr(tracker, "_client", MlflowClient(f"http://127.0.0.1:{port}"))
        tracker.metrics({"generator/pixel": 0.5}, 4)
        while not tracker._is_dead:
            time.sleep(0.05)
        start_s = time.monotonic()
        tracker.close("FINISHED")
        assert time.monotonic() - start_s < 10


def test_project_when_it_was_renamed_corrects_its_database_and_keeps_its_artifacts(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    before, after = tmp_path / "proj's 100%", tmp_path / "renamed"
    before.mkdir()
    shutil.copyfile(empty_database, before / "mlflow.db")
    monkeypatch.chdir(before)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    try:
        first = open_one()
        first.picture("a", photo(0, 8, 8), 4)
        first.close("KILLED")
        monkeypatch.chdir(tmp_path)
        shutil.copytree(before, after)  # a copy: the original must not be written to
        monkeypatch.chdir(after)
        mlflow.tracking._tracking_service.utils._artifact_repos_cache.clear()  # as in the process of a later call
        mlflow.set_tracking_uri(f"sqlite:///{after / 'mlflow.db'}")
        again = open_one(first.run_id)
        again.picture("a", photo(0, 8, 8), 8)
        again.close("FINISHED")
    finally:
        mlflow.set_tracking_uri(None)
    assert again.run_id == first.run_id
    (warning,) = ours(warnings)
    assert f"moved from {before}/mlruns/ to {after}/mlruns/" in warning
    assert (len(list(after.rglob("a*.png"))), len(list(before.rglob("a*.png")))) == (2, 1)
    assert find_moves(f"sqlite:///{after / 'mlflow.db'}") == {}

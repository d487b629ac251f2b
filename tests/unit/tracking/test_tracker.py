"""What a run leaves in MLflow, in one call or in several."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import photo
from mlflow import MlflowClient
from PIL import Image
from tracked_runs import DESCRIPTION, open_run

from pipeline.errors import TrackingError
from pipeline.tracking import Report, RunDescription, TrackedDataset, code, open_existing, source_tags


def test_run_when_closed_can_be_read_back(store: str, tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    weights = tmp_path / "run" / "generator.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    tracker = open_run()
    tracker.metrics({"generator/pixel": 0.5, "validation/psnr_y": 27.5}, 4)
    tracker.metrics({"generator/pixel": 0.25}, 8)
    tracker.picture("validation/chelsea", photo(0, 20, 30), 8)
    tracker.file(weights)
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
    assert warnings() == []


def test_counts_of_faults_are_sent_where_there_are_any_and_other_zeros_always(store: str) -> None:
    tracker = open_run()
    tracker.metrics({"data/substituted": 0.0, "generator/skipped_updates": 0.0, "Set5/texture-wrong": 0.0}, 4)
    tracker.metrics({"data/substituted": 0.0, "generator/skipped_updates": 2.0, "Set5/texture-wrong": 0.5}, 8)
    tracker.close("FINISHED")
    client = MlflowClient(store)
    assert set(client.get_run(tracker.run_id).data.metrics) == {"generator/skipped_updates", "Set5/texture-wrong"}
    histories = (
        client.get_metric_history(tracker.run_id, name) for name in ("generator/skipped_updates", "Set5/texture-wrong")
    )
    assert [[point.step for point in history] for history in histories] == [[8], [4, 8]]


def test_picture_when_logged_is_the_picture(store: str, tmp_path: Path) -> None:
    image = photo(3, 16, 24)
    tracker = open_run()
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


def test_run_when_resumed_keeps_its_id(store: str) -> None:
    first = open_run()
    first.metrics({"generator/pixel": 0.5}, 4)
    first.close("KILLED")
    run_id = first.run_id
    second = open_run()
    second.metrics({"generator/pixel": 0.25}, 8)
    second.close("FINISHED")
    assert second.run_id == run_id
    client = MlflowClient(store)
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(first.run_id, "generator/pixel")] == [4, 8]


def test_run_when_resumed_after_a_kill_sends_each_position_once_and_what_was_missed(store: str) -> None:
    first = open_run()
    first.metrics({"generator/pixel": 0.5, "generator/total": 0.7}, 4)
    first.metrics({"generator/pixel": 0.25}, 12)  # the kill comes before the rest of it
    first.close("KILLED")
    # The run resumes at 8 images, of which the server missed the report.
    record = [Report(4, {"generator/pixel": 0.5, "generator/total": 0.7}), Report(8, {"generator/pixel": 0.4})]
    second = open_run(description=replace(DESCRIPTION, tags={"backend": "DDP"}), record=record)
    second.metrics({"generator/pixel": 0.25, "generator/total": 0.35}, 12)
    second.metrics({"generator/pixel": 0.125}, 16)
    second.close("FINISHED")
    client = MlflowClient(store)
    history = client.get_metric_history(first.run_id, "generator/pixel")
    assert sorted((point.step, point.value) for point in history) == [(4, 0.5), (8, 0.4), (12, 0.25), (16, 0.125)]
    assert [point.step for point in client.get_metric_history(first.run_id, "generator/total")] == [4, 12]
    assert client.get_run(first.run_id).data.tags["backend"] == "DDP"


def test_run_when_mlflow_is_broken_for_a_while_sends_everything_once_afterwards(
    store: str, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    first = open_run()
    first.metrics({"generator/pixel": 0.5}, 4)
    first.close("KILLED")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("ALTER TABLE metrics RENAME TO away")
        second = open_run(record=[Report(4, {"generator/pixel": 0.5})])
        second.metrics({"generator/pixel": 0.25}, 8)
        while not warnings():
            time.sleep(0.01)
        second.picture("Set5/baby", photo(0, 20, 30), 8)
        database.execute("ALTER TABLE away RENAME TO metrics")
    second.metrics({"generator/pixel": 0.125}, 12)
    second.close("FINISHED")
    client = MlflowClient(store)
    history = client.get_metric_history(first.run_id, "generator/pixel")
    assert [(point.step, point.value) for point in history] == [(4, 0.5), (8, 0.25), (12, 0.125)]
    assert len(client.list_artifacts(first.run_id, "images")) == 2  # as it is, and small
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_run_whose_parameters_fail_at_the_start_has_them_afterwards(
    store: str, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    MlflowClient(store).search_experiments()  # at its first use of a database MLflow makes the tables that are missing
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("ALTER TABLE params RENAME TO away")
        tracker = open_run()
        while not warnings():
            time.sleep(0.01)
        database.execute("ALTER TABLE away RENAME TO params")
    tracker.close("FINISHED")
    assert MlflowClient(store).get_run(tracker.run_id).data.params["seed"] == "3"


def test_run_when_the_server_forgot_it_begins_anew_with_a_warning(
    store: str, warnings: Callable[[], list[str]]
) -> None:
    (Path("run") / "tracking" / "mlflow").mkdir(parents=True)
    (Path("run") / "tracking" / "mlflow" / "run_id").write_text("0" * 32)
    tracker = open_run()
    tracker.close("FINISHED")
    assert tracker.run_id not in ("", "0" * 32)
    (warning,) = warnings()
    assert "no longer knows run 000" in warning


def test_picture_that_mlflow_has_already_is_not_sent_again(store: str) -> None:
    first = open_run()
    first.picture("Set5/baby", photo(0, 20, 30), 8)
    first.close("KILLED")
    again = open_run()
    again.picture("Set5/baby", photo(0, 20, 30), 8)  # killed before it knew that MLflow had it
    again.picture("Set5/baby", photo(0, 20, 30), 80)
    again.close("FINISHED")
    pictures = [item.path for item in MlflowClient(store).list_artifacts(first.run_id, "images")]
    assert sorted(path.split("+")[2] for path in pictures) == ["8", "8", "80", "80"]


def test_existing_run_takes_a_picture_and_no_run_is_created_for_an_unknown_one(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_run()
    first.close("FINISHED")
    client = MlflowClient(store)
    before = client.get_run(first.run_id)
    monkeypatch.setattr("sys.argv", ["jobs/visualise.py"])
    open_existing(first.run_id).picture("visualised/discriminator_features", photo(0, 20, 30), 8)
    assert [item.path for item in client.list_artifacts(first.run_id)] == ["images"]
    after = client.get_run(first.run_id)
    assert after.info == before.info
    assert after.data.tags.get("mlflow.source.name") == before.data.tags.get("mlflow.source.name")
    with pytest.raises(TrackingError, match=r"does not know run 0123; check MLFLOW_TRACKING_URI"):
        open_existing("0123")
    assert len(client.search_runs([before.info.experiment_id])) == 1
    assert [found.name for found in client.search_experiments()] == ["sed tests", "Default"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(TrackingError, match="no database"):
        open_existing(first.run_id)
    assert not (tmp_path / "none.db").exists()


def test_run_says_who_started_it_with_which_command_code_and_data(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["jobs/train_sed.py", "demo", "--data.shards", "s3://me:hidden@host/shards"])
    datasets = [TrackedDataset("shards", "d" * 64, "s3://me:hidden@host/shards", {"samples": 22})]
    tracker = open_run(description=RunDescription("sed tests", "first", tags=source_tags(), datasets=datasets))
    tracker.close("FINISHED")
    run = MlflowClient(store).get_run(tracker.run_id)
    tags = run.data.tags
    assert tags["mlflow.source.name"] == "python jobs/train_sed.py demo --data.shards s3://host/shards"
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.user"] == getpass.getuser()
    assert tags["code"] == str(code())
    assert tags.get("mlflow.source.git.commit") == code().commit  # None where the tests run outside a checkout
    (listed,) = run.inputs.dataset_inputs
    assert (listed.dataset.name, listed.dataset.digest) == ("shards", "d" * 36)
    assert (listed.dataset.source_type, json.loads(listed.dataset.source)) == ("s3", {"uri": "s3://host/shards"})
    assert json.loads(listed.dataset.profile) == {"samples": 22}
    assert [(tag.key, tag.value) for tag in listed.tags] == [("mlflow.data.context", "training")]


def test_run_prints_nothing(store: str) -> None:
    run = "t = open_run(); t.metrics({'a': 1.0}, 4); t.close('FINISHED')"
    command = [sys.executable, "-c", f"from tracked_runs import open_run; {run}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert done.stdout + done.stderr == ""


def test_dataset_of_a_resumed_run_is_listed_once(store: str) -> None:
    description = replace(DESCRIPTION, datasets=[TrackedDataset("shards", "d" * 64, "/data/shards")])
    first = open_run(description=description)
    first.close("KILLED")
    open_run(description=description).close("FINISHED")
    assert len(MlflowClient(store).get_run(first.run_id).inputs.dataset_inputs) == 1

"""Runs in TensorBoard's and W&B's own files, read back with their own libraries."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import photo
from tracked_runs import DESCRIPTION, open_run

from pipeline.errors import ConfigError
from pipeline.tracking import MlflowTracker, Report, RunDescription, check_trackers, known_run_id


def test_run_in_tensorboard_has_every_point_once_over_two_calls(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_run(tmp_path / "run", trackers=["tensorboard"], record=[Report(2, {"generator/pixel": 1.0}, 7.0)])
    first.metrics({"generator/pixel": 0.5}, 4)
    image = photo(0, 20, 30)
    first.picture("Set5/baby", image, 4)
    first.close("KILLED")
    again = open_run(tmp_path / "run", trackers=["tensorboard"], record=first.reports)
    again.metrics({"generator/pixel": 0.25, "speed/images_per_second": 80.0}, 8)
    again.close("FINISHED")
    events = EventAccumulator(str(tmp_path / "run" / "tracking" / "tensorboard" / "events"))
    events.Reload()
    points = events.Scalars("generator/pixel")
    assert [(point.step, point.value) for point in points] == [(2, 1.0), (4, 0.5), (8, 0.25)]
    assert points[0].wall_time == 7.0
    assert [point.step for point in events.Scalars("speed/images_per_second")] == [8]
    (picture,) = events.Images("Set5/baby")
    assert (picture.step, picture.width, picture.height) == (4, 30, 20)
    (text,) = events.Tensors("configuration/text_summary")
    assert b'"seed": 3' in text.tensor_proto.string_val[0]
    assert list((tmp_path / "run" / "tracking" / "tensorboard" / "outbox").iterdir()) == []
    assert warnings() == []


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_names_that_are_no_text_are_escaped_and_cost_nothing_else(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    description = RunDescription("tests", "first", {"run_dir": "caf\udce9"}, {"command": "caf\udce9"})
    run = open_run(tmp_path / "run", description, trackers=[tracker])
    run.metrics({"s\udce9t/psnr_y": 28.0, "generator/pixel": 0.5}, 4)
    run.picture("s\udce9t/baby", photo(0, 20, 30), 4)
    run.close("FINISHED")
    if tracker == "wandb":
        end_wandb()
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    for name in (rb"s\udce9t/psnr_y", b"generator/pixel", rb"s\udce9t/baby"):
        assert name in written.replace(b"\\\\", b"\\")  # W&B writes names of pictures as JSON
    assert list((tmp_path / "run" / "tracking" / tracker / "outbox").iterdir()) == []
    assert warnings() == []


def end_wandb() -> None:
    """End W&B's own process, as a training process does at its end: it writes the rest of a file after `finish`."""
    import wandb

    wandb.teardown()


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a W&B file: LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # a header never spans two blocks
            position += 32768 - position % 32768
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def test_run_for_wandb_is_written_offline_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    first = open_run(tmp_path / "run", trackers=["wandb"])
    first.metrics({"generator/pixel": 0.5}, 4)
    first.metrics({"Set5/psnr_y": 28.0}, 4)
    first.picture("Set5/baby", photo(0, 20, 30), 4)
    first.close("KILLED")
    again = open_run(tmp_path / "run", trackers=["wandb"], record=first.reports)
    again.metrics({"generator/pixel": 0.25}, 8)
    again.close("FINISHED")
    end_wandb()
    folder = tmp_path / "run" / "tracking" / "wandb"
    rows, run_ids = [], set()
    for path in sorted(folder.rglob("run-*.wandb")):
        for record in wandb_records(path):
            run_ids |= {record.run.run_id} - {""}
            if items := record.history.item:
                row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
                rows.append({key: value for key, value in row.items() if not key.startswith("_")})
    assert [row for row in rows if "Set5/baby.format" not in row] == [
        {"generator/pixel": 0.5, "images_seen": 4},
        {"Set5/psnr_y": 28.0, "images_seen": 4},
        {"generator/pixel": 0.25, "images_seen": 8},
    ]
    assert len(rows) == 4
    assert len(run_ids) == 1
    assert warnings() == []


def test_run_in_two_trackers_is_in_both_and_one_that_fails_costs_the_other_nothing(
    tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    run = open_run(tmp_path / "run", trackers=["mlflow", "tensorboard"])
    run.metrics({"generator/pixel": 0.5}, 4)
    run.picture("Set5/baby", photo(0, 20, 30), 4)
    run.close("FINISHED")
    events = list((tmp_path / "run" / "tracking" / "tensorboard" / "events").iterdir())
    assert len(events) == 1
    assert b"Set5/baby" in events[0].read_bytes()
    assert len(list((tmp_path / "run" / "tracking" / "mlflow" / "outbox").glob("*.png"))) == 1
    assert known_run_id(tmp_path / "run" / "tracking" / "mlflow") is None
    (warning,) = warnings()
    assert warning.startswith("mlflow cannot be reached")


def test_tracker_that_does_not_exist_or_is_not_installed_is_named_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_trackers(["mlflow", "tensorboard", "wandb"])
    with pytest.raises(ConfigError, match=r"report.trackers: no tracker is named .*; did you mean tensorboard"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package wandb; pip install wandb, or remove it"):
        check_trackers(["mlflow", "wandb"])


def test_picture_in_mlflow_of_a_tracker_called_directly_is_the_picture(store: str, tmp_path: Path) -> None:
    run = MlflowTracker(DESCRIPTION, tmp_path / "mlflow")
    run.open()
    image = photo(0, 20, 30)
    run.picture("Set5/baby", image, 4)
    run.end("FINISHED", unix_s=2.5)
    from mlflow import MlflowClient
    from PIL import Image

    client = MlflowClient(store)
    assert client.get_run(run.run_id).info.end_time == 2500
    (path,) = [item.path for item in client.list_artifacts(run.run_id, "images") if item.path.endswith(".png")]
    assert np.array_equal(np.asarray(Image.open(client.download_artifacts(run.run_id, path, str(tmp_path)))), image)

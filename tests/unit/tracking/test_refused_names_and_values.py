"""Names and values that MLflow or its store refuses cost neither the run nor the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import photo
from mlflow import MlflowClient
from tracked_runs import PARAMETERS, open_run

from pipeline.tracking import RunDescription
from pipeline.tracking.names import metric_name, picture_name, title


def test_names_that_mlflow_refuses_are_mapped_and_stay_distinct(store: str, warnings: Callable[[], list[str]]) -> None:
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
    tracker = open_run(
        description=RunDescription("sed tests", "first", {"a=b": 1, "a+b": 2}, {"launch.TORCH(X)": "v" * 9000})
    )
    tracker.metrics({name: float(number) for number, name in enumerate(names)}, 4)
    for name in names:
        tracker.picture(name, photo(0, 8, 8), 4)
    tracker.close("FINISHED")
    data = MlflowClient(store).get_run(tracker.run_id).data
    assert warnings() == []
    assert {name: data.metrics[metric_name(name)] for name in names} == {name: float(n) for n, name in enumerate(names)}
    assert metric_name("日本/psnr_y") == "日本/psnr_y"
    assert len({picture_name(name) for name in names}) == len(names)
    assert {data.params[metric_name(name)] for name in ("a=b", "a+b")} == {"1", "2"}
    assert len(MlflowClient(store).list_artifacts(tracker.run_id, "images")) == 2 * len(names)


def test_value_that_mlflow_refuses_does_not_take_the_batch_with_it(
    store: str, warnings: Callable[[], list[str]]
) -> None:
    tracker = open_run()
    values: dict[str, Any] = {"good": 1.0, "bad": "no number", "also good": 2.0}
    tracker.metrics(values, 4)
    tracker.close("FINISHED")
    assert MlflowClient(store).get_run(tracker.run_id).data.metrics == {"good": 1.0, "also good": 2.0}
    (warning,) = warnings()
    assert "bad: " in warning


@pytest.mark.parametrize(
    ("experiment", "run_name"), [("", " "), ("e" * 600, "日" * 300), ("a\0b", "a\nb"), ("caf\udce9", "caf\udce9")]
)
def test_experiment_and_run_of_a_refused_name_are_mapped_and_stay_distinct(
    experiment: str, run_name: str, store: str, warnings: Callable[[], list[str]]
) -> None:
    trackers = [
        open_run(Path(f"run{end}"), RunDescription(experiment + end, run_name + end, PARAMETERS)) for end in ("", "1")
    ]
    for tracker in trackers:
        tracker.close("FINISHED")
    assert warnings() == []
    client = MlflowClient(store)
    runs = [client.get_run(tracker.run_id) for tracker in trackers]
    names = {client.get_experiment(run.info.experiment_id).name for run in runs}
    assert names == {title(experiment), title(experiment + "1")}
    assert len(names) == 2
    assert [run.info.run_name for run in runs] == [title(run_name), title(run_name + "1")]


def test_values_that_no_database_stores_cost_neither_the_run_nor_other_values(
    store: str, warnings: Callable[[], list[str]]
) -> None:
    undecodable = os.fsdecode(b"runs/caf\xe9")
    tracker = open_run(
        description=RunDescription(
            "tests", "first", {"run_dir": undecodable, "seed": 3}, {"a": "1\0", "b": undecodable}
        )
    )
    tracker.metrics({"generator/pixel": 0.5}, 4)
    tracker.close("FINISHED")
    assert warnings() == []
    data = MlflowClient(store).get_run(tracker.run_id).data
    assert data.params == {"run_dir": "runs/caf?", "seed": "3"}
    assert (data.tags["a"], data.tags["b"]) == ("1?", "runs/caf?")
    assert data.metrics == {"generator/pixel": 0.5}


def test_metrics_in_a_folder_have_names_that_its_file_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    names = ["日" * 200, "日" * 201, "w" * 251, "val/psnr_y"]
    tracker = open_run(tmp_path / "run")
    tracker.metrics({name: float(number) for number, name in enumerate(names)}, 4)
    tracker.close("FINISHED")
    assert warnings() == []
    data = MlflowClient(f"file://{tmp_path / 'mlruns'}").get_run(tracker.run_id).data
    assert data.metrics == {metric_name(name): float(number) for number, name in enumerate(names)}

"""The pictures of a real tiny run, by the command that a user types, in its folder and in its run in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import job, prepare_tiny_data, run_command
from mlflow import MlflowClient
from PIL import Image
from sessions import run_session


def test_run_is_shown_in_its_folder_and_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    run_session(prepare_tiny_data(tmp_path), tmp_path / "run")
    client = MlflowClient(store)
    (experiment,) = [found for found in client.search_experiments() if found.name == "tests"]
    (run,) = client.search_runs([experiment.experiment_id])

    arguments = ["run", "--sets", "validation", "--classes", "3", "--cells", "18", "--queries", "50%,50%"]
    done = run_command(["python", job("visualise.py"), *arguments], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"and in MLflow, run {run.info.run_id}" in done.stderr
    folder = tmp_path / "run" / "visualised"
    kinds = ("attention", "decisions", "features")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"discriminator_{kind}.png" for kind in kinds),
        "visualise.json",
    ]
    document = json.loads((folder / "visualise.json").read_bytes())
    shown = document["discriminators"]["discriminator"]
    for mean in (each["mean"] for each in shown["features"]["purity"].values()):
        assert 0 <= mean <= 1
        assert f"{mean:.3f} [" in done.stdout
    logged = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert {kind for kind in kinds for path in logged if f"discriminator_{kind}" in path} == set(kinds)
    assert [found.info.status for found in client.search_runs([experiment.experiment_id])] == ["FINISHED"]
    assert all(Image.open(folder / f"discriminator_{kind}.png").width > 500 for kind in kinds)

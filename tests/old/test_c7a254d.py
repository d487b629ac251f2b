"""What commit c7a254d left on disk is read as before: shards, features, run folders and a registered version.

The archives hold one small artifact of each kind, written by that commit (see `make.py`), with what it read back from
them. The jobs are called as users call them, so that these tests survive every reorganisation of the code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
import sqlite3
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import job, run_command
from PIL import Image
from safetensors.torch import load_file

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.data.samples import TrainingSamples, collate
from pipeline.degrade import degrade

OLD = Path(__file__).parent / "c7a254d"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text())
CHAMPION = "models:/old-model@champion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working folder, moved here from where the old commit ran."""
    folder = tmp_path_factory.mktemp("c7a254d")
    for name in ("data", "runs", "registry"):
        with tarfile.open(OLD / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def work_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `jobs/NAME` in this process, which has torch loaded already; returns its exit code."""

    def run(name: str, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(job(name), run_name="__main__")
        return int(ended.value.code or 0)

    return run


def open_samples(shards: Path, features: Path | None) -> TrainingSamples:
    train = RunFolder(Path("run")).read_config().train
    return TrainingSamples(dataclasses.replace(train.data, shards=shards), train.seed, features)


def sha256(array: np.ndarray | None) -> str:
    assert array is not None
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_samples_and_cached_features_are_the_same_bytes() -> None:
    samples = open_samples(Path("shards"), Path("features"))
    items = [samples[position] for position in range(len(EXPECTED["samples"]))]
    assert [
        {"key": item.key, "hr": sha256(item.hr), "lq": sha256(item.lq), "semantics": sha256(item.semantics)}
        for item in items
    ] == EXPECTED["samples"]


def test_real_world_samples_are_degraded_as_before() -> None:
    samples = open_samples(Path("realworld"), None)
    batch = collate([samples[position] for position in range(len(EXPECTED["realworld_keys"]))])
    assert list(batch.keys) == EXPECTED["realworld_keys"]
    assert batch.images[0].degradation is not None
    lq, gt, _ = degrade(batch.images[0].hr.float() / 255, batch.images[0].degradation)
    with np.load(OLD / "degraded.npz") as recorded:
        assert np.array_equal((gt * 255).round().byte().numpy(), recorded["gt"])
        # Another machine's sums may round to the next of 256 levels.
        assert largest_difference((lq * 255).round().byte().numpy(), recorded["lq"]) <= 1


@pytest.mark.parametrize("name", ["shards", "realworld", "features"])
def test_shards_are_verified_without_a_fault(run_here: Callable[..., int], name: str) -> None:
    assert run_here("verify.py", name) == 0


def test_finished_cache_is_not_written_again(folder: Path) -> None:
    tars = sorted((folder / "features").glob("*.tar"))
    before = [tar.stat().st_mtime_ns for tar in tars]
    command = ["python", job("cache_features.py"), "run", "--shards", "shards", "--output", "features"]
    done = run_command(command, folder)
    assert done.returncode == 0, done.stderr
    assert f"reusing {len(tars)} of {len(tars)} feature tars" in done.stderr
    assert [tar.stat().st_mtime_ns for tar in tars] == before


def test_interrupted_run_is_resumed_to_the_same_end(folder: Path) -> None:
    # Its config.json names the folder it was trained in, `run`, where the finished one lies.
    (folder / "run").rename(folder / "finished")
    (folder / "interrupted").rename(folder / "run")
    try:
        done = run_command(["python", job("train_sed.py"), "run"], folder)
        assert done.returncode == 0, done.stderr
        assert "resuming at 16 images" in done.stderr
        resumed, straight = (read_metrics(folder / name) for name in ("run", "finished"))
        # Not reported then. The milestone at 16 images counts from the run's first step, as it did when the run began.
        rates = [line.get("discriminator/learning_rate") for line in resumed if "learning_rate" in line]
        assert rates == [None, None, None, None, 5e-5, 5e-5]
        assert RunFolder(folder / "run").read_config().train.schedule.discriminator_clock == "run"
        for ours, theirs in zip(resumed, straight, strict=True):
            # Later versions report more.
            assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-3)
        ours, theirs = (load_file(folder / name / "export/generator.safetensors") for name in ("run", "finished"))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, rtol=1e-4, atol=1e-5)
    finally:
        (folder / "run").rename(folder / "resumed")
        (folder / "finished").rename(folder / "run")


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_export_upscales_as_before(run_here: Callable[..., int], folder: Path) -> None:
    assert run_here("upscale.py", "run", "lq.png", "ours.png") == 0
    assert largest_difference(*(np.asarray(Image.open(path)) for path in ("ours.png", OLD / "upscaled.png"))) <= 1


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


def test_export_is_measured_as_before(run_here: Callable[..., int]) -> None:
    assert_measured(run_here, "run")


def test_registered_version_is_opened_and_measured_as_before(run_here: Callable[..., int], folder: Path) -> None:
    move_store(folder / "mlflow.db", EXPECTED["made_in"], str(folder))
    assert_measured(run_here, CHAMPION)
    import mlflow.pytorch as mlflow_pytorch

    stored: Any = mlflow_pytorch.load_model(CHAMPION)
    with torch.inference_mode():
        assert stored(torch.rand(1, 3, 13, 19)).shape == (1, 3, 52, 76)


def move_store(database: Path, old: str, new: str) -> None:
    """Points MLflow's absolute artifact paths to a new folder, as a user who moves a local store must."""
    columns = {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "logged_models": ("artifact_location",),
        "model_versions": ("source", "storage_location"),
    }
    with sqlite3.connect(database) as connection:
        for table, names in columns.items():
            for name in names:
                connection.execute(f"UPDATE {table} SET {name} = replace({name}, ?, ?)", (old, new))


def assert_measured(run_here: Callable[..., int], model: str) -> None:
    assert run_here("evaluate.py", model, "--sets", "validation", "--output", "evaluation.json") == 0
    ours, theirs = json.loads(Path("evaluation.json").read_text()), EXPECTED["evaluation"]
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert ours["scale"] == theirs["scale"]
    for name, values in theirs["sets"]["validation"]["images"].items():
        found = ours["sets"]["validation"]["images"][name]
        assert {metric: found[metric] for metric in values} == pytest.approx(values, abs=1e-3)

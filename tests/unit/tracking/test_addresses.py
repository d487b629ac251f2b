"""Addresses of MLflow that are paths: what every program of MLflow takes literally is refused with the right line."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import model_file, prepare_tiny_data, write_photos, write_preset

import jobs.promote
import jobs.sync
import jobs.train_sed
import jobs.ui
from jobs.terminal import run_job
from pipeline.tracking.environment import check_addresses
from shards.errors import InputError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/my runs")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("sqlite:///~/x.db", "sqlite:////home/me/x.db"),
        ("sqlite+pysqlite:///~/x.db", "sqlite+pysqlite:////home/me/x.db"),
        ("sqlite:///$SCRATCH/x.db", "'sqlite:////scratch/my runs/x.db'"),
        ("~/mlruns", "/home/me/mlruns"),
        ("file:~/mlruns", "file:/home/me/mlruns"),
        ("file://${HOME}/mlruns", "file:///home/me/mlruns"),
    ],
)
@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_address_with_a_home_folder_or_variable_is_refused_with_the_line_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str, meant: str
) -> None:
    monkeypatch.setenv(name, address)
    with pytest.raises(InputError) as raised:
        check_addresses()
    assert f"{name}={address} names a path" in str(raised.value)
    assert str(raised.value).endswith(f"export {name}={meant}")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "sqlite:///mlflow.db",
        "sqlite:////data/~/x.db",
        "sqlite:///a~b.db",
        "mlruns",
        "http://me:pa$SCRATCH@127.0.0.1:5000",
        "postgresql+psycopg://me:$NOT_SET@127.0.0.1/mlflow",
        "databricks",
        "databricks://profile",
    ],
)
def test_address_that_means_what_it_says_stays(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    check_addresses()


def test_path_that_exists_as_written_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "x.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/x.db")
    check_addresses()


def test_every_job_of_mlflow_refuses_it_before_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/x.db")
    write_preset(prepare_tiny_data(tmp_path / "data"), tmp_path / "preset.json")
    write_photos(tmp_path / "set" / "HR", [(32, 32)])
    model = model_file(tmp_path / "m.safetensors")
    for main, arguments in (
        (jobs.train_sed.main, ["preset.json", "--run-dir", "run"]),
        (jobs.promote.main, [model, "--name", "x", "--sets", "set"]),
        (jobs.sync.main, ["run"]),
        (jobs.ui.main, []),
    ):
        assert run_job(main, arguments) == 2
        assert "write: export MLFLOW_TRACKING_URI=sqlite:////home/me/x.db" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()
    assert not (tmp_path / "run").exists()

"""A run that was trained without a server, sent afterwards: it looks as one that was tracked while it trained."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, changed, prepare_tiny_data
from mlflow import MlflowClient
from mlflow.entities import Run
from sessions import run_session

from jobs import sync
from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS, run_job
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset
from pipeline.tracking import known_run_id

# Of this very call: times, and what is where.
OWN = {"train.run_dir", "mlflow.runName"}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("sync"))
    report = dataclasses.replace(preset.train.report, validate_every_images=8, checkpoint_every_images=8)
    return changed(preset, report=report)


def tracked(client: MlflowClient, run_dir: Path) -> Run:
    return client.get_run(known_run_id(RunFolder(run_dir).mlflow) or "")


def looks(client: MlflowClient, run: Run) -> dict[str, Any]:
    """Return what people see of a run, without what differs between two calls of one command."""
    run_id = run.info.run_id
    points = {
        name: [
            (point.step, None if name.startswith(("speed/", "memory/", "system/")) else point.value)
            for point in client.get_metric_history(run_id, name)
        ]
        for name in run.data.metrics
    }
    pictures = [item.path.split("+timestamp")[0] for item in client.list_artifacts(run_id, "images")]
    return {
        "points": points,
        "pictures": sorted(pictures),
        "files": sorted(item.path for item in client.list_artifacts(run_id)),
        "parameters": {name: value for name, value in run.data.params.items() if name != "run_dir"},
        "tags": {name: value for name, value in run.data.tags.items() if name not in OWN},
        "datasets": [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs],
        "status": run.info.status,
    }


def test_run_trained_without_a_server_looks_the_same_once_it_is_sent(
    store: str, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    run_session(preset, tmp_path / "live")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    run_session(preset, tmp_path / "offline", 8)
    run_session(preset, tmp_path / "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    for _ in range(2):  # the second call finds nothing to send
        assert run_job(sync.main, [str(tmp_path / "offline")]) == 0
    client = MlflowClient(store)
    live, offline = (tracked(client, tmp_path / name) for name in ("live", "offline"))
    assert looks(client, offline) == looks(client, live)
    # One at the start, two at three validations, two of the discriminator at the last two; each as it is, and small.
    assert len(looks(client, live)["pictures"]) == (1 + 3 * 2 + 2 * 2) * 2
    assert list(live.data.metrics) != []
    assert offline.info.end_time is not None
    times = [point.timestamp for point in client.get_metric_history(offline.info.run_id, "speed/images_per_second")]
    assert times == sorted(times)
    assert offline.info.start_time <= times[0]
    assert (
        times[-1] <= offline.info.end_time < (RunFolder(tmp_path / "offline").mlflow / "run_id").stat().st_mtime * 1000
    )


def test_run_that_was_tracked_elsewhere_is_sent_with_its_files_and_says_what_it_lacks(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    laptop, server = (f"sqlite:///{tmp_path / name}.db" for name in ("laptop", "server"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", laptop)
    run_session(preset, tmp_path / "run")
    known = tracked(MlflowClient(laptop), tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert run_job(sync.main, [str(tmp_path / "run")]) == 0
    assert "without the pictures" in capsys.readouterr().err
    assert run_job(sync.main, [str(tmp_path / "run")]) == 0  # finds nothing to send
    assert "has all of it" in capsys.readouterr().err
    moved = tracked(MlflowClient(server), tmp_path / "run")
    before, after = looks(MlflowClient(laptop), known), looks(MlflowClient(server), moved)
    assert before.pop("pictures")
    assert not after.pop("pictures")
    before["files"].remove("images")
    del before["tags"]["mlflow.loggedImages"]
    assert before["files"] == ["config.json", "generator.safetensors"]
    assert after == before


def test_run_that_was_killed_is_sent_as_killed_and_one_whose_server_is_away_stays_whole(
    store: str,
    closed_port: int,
    preset: Preset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    run_session(preset, run_dir, 12)
    waiting = sorted(path.name for path in (RunFolder(run_dir).mlflow / "outbox").iterdir())
    assert run_job(sync.main, [str(run_dir)]) == EXIT_FAULTS
    assert "error: 1 of 1 runs could not be used" in capsys.readouterr().err
    assert sorted(path.name for path in (RunFolder(run_dir).mlflow / "outbox").iterdir()) == waiting != []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert run_job(sync.main, [str(run_dir)]) == 0
    assert tracked(MlflowClient(store), run_dir).info.status == "KILLED"
    run_session(preset, run_dir)
    assert tracked(MlflowClient(store), run_dir).info.status == "FINISHED"


# Sends a run, and dies as SIGKILL does it when the first preview is to be written.
DIES_BETWEEN_PICTURE_AND_PREVIEW = """
import os, signal, sys

def die(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(".webp"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
from jobs import sync
sync.main(sys.argv[1:])
"""


def test_picture_whose_sender_was_killed_is_sent_again(
    store: str, closed_port: int, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    run_session(preset, run_dir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    command = [sys.executable, "-c", DIES_BETWEEN_PICTURE_AND_PREVIEW, str(run_dir)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    client = MlflowClient(store)
    pictures, previews = pictures_of(client, run_dir)
    assert len(pictures - previews) == 1
    assert run_job(sync.main, [str(run_dir)]) == 0
    pictures, previews = pictures_of(client, run_dir)
    assert pictures == previews
    assert len(previews) == 1 + 3 * 2 + 2 * 2
    assert len(client.search_runs([tracked(client, run_dir).info.experiment_id])) == 1


def pictures_of(client: MlflowClient, run_dir: Path) -> tuple[set[str], set[str]]:
    """Names and positions of the pictures that MLflow has, and of their previews."""
    paths = [Path(item.path).name for item in client.list_artifacts(tracked(client, run_dir).info.run_id, "images")]
    names = [{path.split("+timestamp")[0] for path in paths if path.endswith(end)} for end in (".png", ".webp")]
    return names[0], names[1]


def test_run_of_an_older_version_is_sent_from_its_configuration_and_numbers(
    store: str, preset: Preset, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_session(changed(preset, report=dataclasses.replace(preset.train.report, trackers=())), run_dir)
    assert [path.name for path in RunFolder(run_dir).tracking.iterdir()] == ["run.json"]
    (RunFolder(run_dir).tracking / "run.json").unlink()
    RunFolder(run_dir).machine.unlink()
    assert run_job(sync.main, [str(run_dir)]) == 0
    run = tracked(MlflowClient(store), run_dir)
    assert run.data.params["schedule.total_images"] == "24"
    assert "generator/pixel" in run.data.metrics


def test_folder_that_is_being_trained_or_holds_no_run_is_refused(
    store: str, preset: Preset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(sync.main, [str(tmp_path)]) == EXIT_BAD_INPUT
    assert "holds no run; give the --run-dir of jobs/train_sed.py" in capsys.readouterr().err
    assert run_job(sync.main, []) == EXIT_BAD_INPUT
    assert "demo/sed holds no run" in capsys.readouterr().err
    run_dir = tmp_path / "run"
    done: list[subprocess.CompletedProcess[str]] = []

    def send(position: int) -> bool:
        if position == 8 and not done:
            # Of another process: a process never waits for a lock of its own.
            command = [sys.executable, str(ROOT / "jobs" / "sync.py"), str(run_dir)]
            done.append(subprocess.run(command, capture_output=True, text=True, timeout=120, check=False))
        return False

    run_session(preset, run_dir, must_stop=send)
    (refused,) = done
    assert refused.returncode == EXIT_FAULTS
    assert "is being trained, and the process that trains it sends everything" in refused.stderr

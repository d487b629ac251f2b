"""Jobs that write files of a user's choice leave none half-written when they are stopped, or killed and run again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import job, job_environment, model_file, prepare_tiny_data, write_photos
from tiny_experiment import DOCUMENT

import jobs.evaluate
import jobs.preview
import jobs.upscale
from jobs.command_line import PRESETS
from jobs.terminal import run_job
from pipeline.config.plain import structure
from pipeline.experiments.comparing import Comparing
from pipeline.experiments.execution import Commands
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.plan import Choices, plan
from shards.format.files import open_atomic


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_upscale_removes_what_a_killed_one_left_and_nothing_else(here: Path) -> None:
    write_photos(here / "photos", [(24, 32)])
    out = here / "out"
    out.mkdir()
    litter = out / ".photo7.png.4194304-0123abcd.sed-tmp"
    kept = [out / ".images-000000.tar.4194304-0123abcd.sed-tmp", out / ".mine.png", out / "a.png.sed-tmp"]
    for path in (litter, *kept):
        path.write_bytes(b"half")
    with open_atomic(out / "living.png") as stream:  # another job that writes there now
        stream.write(b"whole")
        assert run_job(jobs.upscale.main, [model_file(here / "m.safetensors"), "photos", "out"]) == 0
    assert not litter.exists()
    assert all(path.read_bytes() == b"half" for path in kept)
    assert (out / "living.png").read_bytes() == b"whole"


def test_evaluation_and_preview_remove_what_killed_ones_left_of_their_files_and_nothing_else(here: Path) -> None:
    write_photos(here / "set" / "HR", [(24, 32)])
    prepare_tiny_data(here / "data")
    ending = ".4194304-0123abcd.sed-tmp"
    litter = [here / f".{name}{ending}" for name in ("numbers.json", "images.csv", "images.png", "preview.png")]
    kept = here / f".other.png{ending}"
    for path in (*litter, kept):
        path.write_bytes(b"half")
    files = ["--output", "numbers.json", "--table", "images.csv", "--picture", "images.png"]
    assert run_job(jobs.evaluate.main, [model_file(here / "m.safetensors"), "--sets", "set", *files]) == 0
    assert run_job(jobs.preview.main, [str(here / "data" / "shards"), "--output", "preview.png"]) == 0
    assert [path for path in (*litter, kept) if path.exists()] == [kept]


def test_comparison_removes_what_killed_ones_left_of_its_files_and_nothing_else(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'mlflow.db'}")
    planned = plan(structure(DOCUMENT, Experiment, "tiny"), Choices(here / "out", "cpu"), PRESETS)
    ours = (
        "report.html",
        "comparison.csv",
        "measured/plain/seed-1.json",
        "pictures/plain/set/a.png",
        "study/study.html",
    )
    others = ("notes.html", "mine/report.html", "runs/plain/seed-1/status.json")
    ending = ".4194304-0123abcd.sed-tmp"
    litter, kept = ([here / "out" / name for name in names] for names in (ours, others))
    for path in (*litter, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{path.name}{ending}").write_bytes(b"half")
    (here / "out" / "settings").mkdir()
    with open_atomic(here / "out" / "settings" / "plain.json") as stream:  # another call that writes there now
        stream.write(b"whole")
        Comparing(planned, Commands((), ()), "compare").check()
    left = {path.name.removesuffix(ending)[1:] for path in (here / "out").rglob(f".*{ending}")}
    assert left == {"notes.html", "report.html", "status.json"}
    assert (here / "out" / "settings" / "plain.json").read_bytes() == b"whole"


@pytest.mark.parametrize(("number", "code", "words"), [(15, 143, "stopped by SIGTERM"), (2, 130, "interrupted")])
def test_upscale_when_asked_to_stop_leaves_nothing_and_says_so_last(
    here: Path, number: int, code: int, words: str
) -> None:
    write_photos(here / "photos", [(400, 400)] * 30)
    command = [sys.executable, job("upscale.py"), model_file(here / "m.safetensors"), "photos", "out"]
    # A shell starts background jobs with SIGINT ignored, and every process below would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(command, env=job_environment(here), stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not (here / "out" / "photo0.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert words in err.splitlines()[-1]
    assert not list((here / "out").glob(".*"))

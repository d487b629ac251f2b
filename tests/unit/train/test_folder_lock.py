"""Two commands in one run folder: the second is refused, until the first has ended, however it ended."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, prepare_tiny_data
from sessions import run_session

import pipeline.run.record
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import ConfigError
from pipeline.tracking import Trackers

# Holds the folder and has a child of its own, as a training process has its loaders; says the child's number.
_HOLDER = """
import os, sys, time
from pathlib import Path
from pipeline.checkpoint.run_folder import RunFolder
lock = RunFolder(Path(sys.argv[1])).lock()
assert lock
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    subprocess.run(["kill", "-9", str(child)], check=True)
    process.wait()


def test_folder_when_another_process_trains_in_it_is_refused_and_free_when_that_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset, run = prepare_tiny_data(tmp_path), tmp_path / "run"
    with pytest.raises(ConfigError, match=r"another process is training in .*run, .*or start a new run with --run-dir"):
        run_session(preset, run)
    assert [path.name for path in run.iterdir()] == [".lock"]
    holder.kill()
    holder.wait()  # its child goes on
    outcome, _ = run_session(preset, run)
    assert outcome.is_finished


def test_folder_when_killed_calls_left_temporary_files_is_cleaned_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset, run = prepare_tiny_data(tmp_path), tmp_path / "run"
    run_session(preset, run, stop_at=8)
    names = ["config.json", "status.json", "metrics.jsonl", "export/generator.safetensors", "pictures/a.png"]
    for path in [run / name for name in (*names, "skipped_updates/rank_0.json")]:
        path.parent.mkdir(exist_ok=True)
        (path.parent / f".{path.name}.4194304-0123abcd.sed-tmp").write_bytes(b"half")
    run_session(preset, run, stop_at=12)
    assert list(run.rglob("*.sed-tmp")) == []


def test_folder_on_storage_without_locks_is_free_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    lock = RunFolder(tmp_path / "run").lock()
    assert lock is not None
    lock.close()

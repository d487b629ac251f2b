"""Run folders that are not the same on every machine: refused, or the ranks would train different runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import prepare_tiny_data, run_ranks, tiny_preset
from sessions import run_session

import pipeline.run.record
import pipeline.run.session
from pipeline.errors import CheckpointError
from pipeline.run.session import Session
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers


def on_rank(rank: int, world_size: int, folder: str) -> None:
    preset = tiny_preset(Path(folder), run_dir=str(Path(folder) / f"run{rank}"))
    session = Session(preset, Backend(preset.train.runtime, batch_size=preset.train.data.batch_size))
    message = r"rank 0 resumes at 0 images, rank . at \d+; --run-dir .* must be on storage that all machines share"
    with pytest.raises(CheckpointError, match=message):
        session.run(lambda seen, total: None, lambda: False)


@pytest.mark.distributed
def test_ranks_when_they_see_different_checkpoints_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset = prepare_tiny_data(tmp_path)
    run_session(preset, tmp_path / "run1", stop_at=8)
    run_ranks(on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path),), timeout_s=120)

"""A real session on two gloo ranks under ZeRO stage 3: stopped, resumed, exported, as one process does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import launch_as
from harness import comparable, prepare_tiny_data, run_ranks, write_preset
from safetensors.torch import load_file
from sessions import lines_of, run_session

import pipeline.run.record
from pipeline.config.presets import load_resolved
from pipeline.config.schema import Preset
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers


def train_on_rank(rank: int, world_size: int, folder: str) -> None:
    pipeline.run.record.open_trackers = lambda *_: Trackers()
    preset, run_dir = load_resolved(Path(folder) / "preset.json", Preset), Path(folder) / "zero"
    for stop_at, position in ((12, 12), (None, 24)):
        launch_as("zero 3", Path(folder))
        outcome, _ = run_session(preset, run_dir, stop_at=stop_at)
        assert outcome.images_seen == position
    launch_as("zero 3", Path(folder))
    Backend(preset.train.runtime, batch_size=preset.train.data.batch_size).close()


@pytest.mark.slow
@pytest.mark.distributed
def test_session_under_zero_3_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    run_session(preset, tmp_path / "one")
    run_ranks(train_on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path),))
    ours, theirs = lines_of(tmp_path / "zero"), lines_of(tmp_path / "one")
    assert [line["images_seen"] for line in ours] == [line["images_seen"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert comparable(line) == pytest.approx(comparable(expected), rel=1e-3, abs=1e-4)
    for name in ("generator", "discriminator"):
        found, wanted = (load_file(tmp_path / run / "export" / f"{name}.safetensors") for run in ("zero", "one"))
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert float((found[key] - value).abs().max()) <= 2e-3 * max(float(value.abs().max()), 1e-3), key

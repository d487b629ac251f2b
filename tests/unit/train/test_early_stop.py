"""A real session in this process: asked to stop, it saves where it is, and the next one ends as if undisturbed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from safetensors.torch import load_file

import pipeline.session
from pipeline.config import Preset
from pipeline.runtime.backend import Backend, RuntimeChoice
from pipeline.session import Outcome, Session
from pipeline.tracking import NullTracker


class Screen:
    """Remembers where the run was."""

    def __init__(self, images_seen: int, total_images: int) -> None:
        self.positions = [images_seen]

    def advance(self, images_seen: int, stage: str) -> None:
        self.positions.append(images_seen)

    def line(self, images_seen: int, values: dict[str, float]) -> None:
        pass


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("session"))


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.session, "open_tracker", lambda *_: NullTracker())


def run(preset: Preset, run_dir: Path, stop_at: int | None = None) -> tuple[Outcome, list[int]]:
    """Train in this process until the position is reached, or to the end."""
    preset = changed(preset, run_dir=run_dir)
    screens: list[Screen] = []

    def progress_of(images_seen: int, total_images: int) -> Screen:
        screens.append(Screen(images_seen, total_images))
        return screens[0]

    def must_stop() -> bool:
        return stop_at is not None and screens[0].positions[-1] >= stop_at

    session = Session(preset, Backend(RuntimeChoice("float32", True, 0.0, preset.train.data.batch_size)))
    outcome = session.run(progress_of, must_stop)
    session.close()
    return outcome, screens[0].positions if screens else []


def lines_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_run_when_stopped_between_reports_and_run_again_ends_as_if_undisturbed(preset: Preset, tmp_path: Path) -> None:
    # Reports of two steps, so that a stop after one splits a report.
    report = dataclasses.replace(preset.train.report, every_images=8, validate_every_images=24)
    preset = changed(preset, report=report)
    whole, straight = tmp_path / "whole", tmp_path / "straight"
    outcome, positions = run(preset, straight)
    assert outcome.is_finished
    assert positions == [0, 4, 8, 12, 16, 20, 24]

    outcome, positions = run(preset, whole, stop_at=12)
    assert not outcome.is_finished
    assert outcome.images_seen == positions[-1] == 12
    assert (whole / "checkpoints" / "images-0000000012" / "manifest.json").is_file()
    assert not (whole / "export").exists()

    outcome, positions = run(preset, whole)
    assert outcome.is_finished
    assert positions == [12, 16, 20, 24]
    assert lines_of(whole) == lines_of(straight)
    expected = load_file(straight / "export" / "generator.safetensors")
    for name, tensor in load_file(whole / "export" / "generator.safetensors").items():
        assert torch.equal(tensor, expected[name])

    shutil.rmtree(whole / "export")  # as if killed after the last checkpoint
    outcome, positions = run(preset, whole)
    assert outcome.is_finished
    assert positions == []
    assert (whole / "export" / "generator.safetensors").is_file()

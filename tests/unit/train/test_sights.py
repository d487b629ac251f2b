"""What the discriminator sees is shown at validations, and showing it changes no bit of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import changed, prepare_tiny_data
from sessions import assert_same_end, run_session

import pipeline.run.record
import pipeline.run.sights
from pipeline.config.schema import Preset
from pipeline.run.sights import Sights
from pipeline.tracking import Trackers


class Noting(Trackers):
    """Remembers the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[tuple[str, int]] = []

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        assert path.is_file()
        self.pictures.append((name, images_seen))


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("sights"))
    return changed(preset, report=dataclasses.replace(preset.train.report, validate_every_images=8))


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Noting:
    noting = Noting()
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: noting)
    return noting


def of_discriminator(tracker: Noting) -> Sequence[tuple[str, int]]:
    return [(name, images_seen) for name, images_seen in tracker.pictures if name.startswith("discriminator")]


def test_run_whose_discriminator_is_shown_trains_to_the_same_bits(
    preset: Preset, tracker: Noting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_session(preset, tmp_path / "shown")
    names = ("discriminator/decisions", "discriminator/attention")
    # The adversarial stage begins at image 8.
    assert of_discriminator(tracker) == [(name, images_seen) for images_seen in (16, 24) for name in names]
    monkeypatch.setattr(Sights, "show", lambda *_: None)
    run_session(preset, tmp_path / "plain")
    assert_same_end(tmp_path / "shown", tmp_path / "plain")


def test_run_whose_discriminator_cannot_be_shown_trains_on_with_one_warning(
    preset: Preset,
    tracker: Noting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipeline.run.sights, "quick_look", fail)
    outcome, _ = run_session(preset, tmp_path / "run")
    assert outcome.is_finished
    assert of_discriminator(tracker) == []
    lines = [record.getMessage() for record in caplog.records if "discriminators see" in record.getMessage()]
    assert lines == ["what the discriminators see cannot be shown: out of memory"]

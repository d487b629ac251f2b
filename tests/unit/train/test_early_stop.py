"""A real session in this process: asked to stop, it saves where it is, and the next one ends as if undisturbed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import changed, prepare_tiny_data
from safetensors.torch import load_file
from sessions import assert_same_end, assert_same_exports, lines_of, run_session, saved_positions

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.errors import CheckpointError
from pipeline.models.discriminators import UNetDiscriminator, UNetOptions
from pipeline.tracking import Trackers


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("session"))


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


@pytest.fixture(scope="module")
def straight(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
        folder = tmp_path_factory.mktemp("straight") / "run"
        run_session(preset, folder)
    return folder


def test_run_when_stopped_between_reports_and_run_again_ends_as_if_undisturbed(preset: Preset, tmp_path: Path) -> None:
    # Reports of two steps, so that a stop after one splits a report.
    report = dataclasses.replace(preset.train.report, every_images=8, validate_every_images=24)
    preset = changed(preset, report=report)
    whole, straight = tmp_path / "whole", tmp_path / "straight"
    outcome, positions = run_session(preset, straight)
    assert outcome.is_finished
    assert positions == [0, 4, 8, 12, 16, 20, 24]

    outcome, positions = run_session(preset, whole, stop_at=12)
    assert not outcome.is_finished
    assert outcome.images_seen == positions[-1] == 12
    assert (whole / "checkpoints" / "images-0000000012" / "manifest.json").is_file()
    assert not (whole / "export").exists()

    outcome, positions = run_session(preset, whole)
    assert outcome.is_finished
    assert positions == [12, 16, 20, 24]
    assert_same_end(whole, straight)

    shutil.rmtree(whole / "export")  # as if killed after the last checkpoint
    outcome, positions = run_session(preset, whole)
    assert outcome.is_finished
    assert positions == []
    assert_same_end(whole, straight)


@pytest.mark.parametrize("first_images", [8, 16])
def test_run_when_made_longer_ends_as_one_that_was_that_long(
    preset: Preset, straight: Path, tmp_path: Path, first_images: int
) -> None:
    """The first 8 images are the pixel stage, which knows no discriminator."""
    whole = tmp_path / "run"
    shorter = dataclasses.replace(preset.train.schedule, total_images=first_images)
    outcome, _ = run_session(changed(preset, schedule=shorter), whole)
    assert outcome.is_finished
    stale = tmp_path / "stale"
    shutil.copytree(whole / "export", stale)
    outcome, positions = run_session(preset, whole)
    assert outcome.is_finished
    assert positions[0] == first_images
    assert_same_exports(whole, straight)

    shutil.rmtree(whole / "export")
    shutil.copytree(stale, whole / "export")  # as if killed before the longer run's export
    run_session(preset, whole)
    assert_same_exports(whole, straight)


def test_session_trains_what_an_ablation_names(preset: Preset, tmp_path: Path) -> None:
    train = preset.train
    ablation = UNetOptions(semantic=True, num_features=8, fusion="modulation", residual=True, placement="encoder")
    losses = dataclasses.replace(train.losses, ldl_weight=1.0)
    outcome, _ = run_session(changed(preset, discriminator=ablation, losses=losses), tmp_path / "run")
    assert outcome.is_finished
    exported = load_file(tmp_path / "run" / "export" / "discriminator.safetensors")
    built = UNetDiscriminator(8, 256, fusion="modulation", residual=True, placement="encoder")
    assert {name: t.shape for name, t in exported.items()} == {n: t.shape for n, t in built.state_dict().items()}
    report = lines_of(tmp_path / "run")[-2]
    assert report["generator/ldl"] > 0


def nth_time(number: int) -> Callable[[int], bool]:
    """A wish to stop that comes when it is asked for the n-th time, and stays."""
    asked = []

    def must_stop(position: int) -> bool:
        asked.append(position)
        return len(asked) >= number

    return must_stop


@pytest.mark.parametrize(
    ("asked", "position", "is_due"),
    [(3, 12, True), (5, 12, True), (6, 16, False), (8, 24, True), (9, 24, True), (10, 24, True), (11, 24, False)],
)
def test_run_when_stopped_while_validating_exits_and_validates_when_resumed(
    preset: Preset, straight: Path, tmp_path: Path, asked: int, position: int, is_due: bool
) -> None:
    # Each step asks once, at its end; then the validations at 12 and at 24 ask before each of two images.
    whole = tmp_path / "whole"
    outcome, _ = run_session(preset, whole, must_stop=nth_time(asked))
    assert outcome.images_seen == position
    assert outcome.is_finished == (position == 24 and not is_due)
    assert saved_positions(whole)[-1] == position
    at_position = [line for line in lines_of(whole) if line["images_seen"] == position]
    assert len(at_position) == (2 if outcome.is_finished else 1)
    if is_due and position == 12:
        outcome, _ = run_session(preset, whole, must_stop=nth_time(1))  # again, before anything was done
        assert not outcome.is_finished
        assert outcome.images_seen == position
    outcome, _ = run_session(preset, whole)
    assert outcome.is_finished
    assert_same_end(whole, straight)
    assert saved_positions(whole) == saved_positions(straight)
    outcome, _ = run_session(preset, whole)
    assert not outcome.has_trained


def test_run_when_killed_after_a_validation_that_was_due_does_not_write_it_twice(
    preset: Preset, straight: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    run_session(preset, whole, must_stop=nth_time(3))
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(whole / "checkpoints" / "images-0000000012", checkpoint)
    run_session(preset, whole, must_stop=nth_time(3))  # validates, trains a step, stops
    assert saved_positions(whole)[-1] == 16
    for later in (whole / "checkpoints").glob("*"):
        shutil.rmtree(later)
    shutil.copytree(checkpoint, whole / "checkpoints" / "images-0000000012")
    run_session(preset, whole)
    assert_same_end(whole, straight)


def test_checkpoint_of_other_networks_is_refused_and_named(preset: Preset, straight: Path, tmp_path: Path) -> None:
    wider = changed(preset, generator=dataclasses.replace(preset.train.generator, num_features=16))
    shutil.copytree(straight / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"(?s)the checkpoint's average is another network: .*size mismatch"):
        run_session(wider, tmp_path / "run")

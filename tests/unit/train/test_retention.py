"""Which checkpoints stay: by position and by the metrics file alone, so that resumes change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from harness import changed, prepare_tiny_data
from sessions import run_session, saved_positions

import pipeline.run.record
from pipeline.checkpoint import Retention
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.tracking import Trackers
from pipeline.train.report import MetricsFile
from pipeline.weights.files import read_metadata


def kept_after_each(rule: Retention, positions: list[int]) -> list[int]:
    """Save at each position, dropping what need not stay, as a run does."""
    there: set[int] = set()
    for position in positions:
        there = rule.kept([*there, position])
    return sorted(there)


def test_newest_stay_and_multiples_stay_for_good() -> None:
    assert kept_after_each(Retention(2), [8, 16, 24, 32]) == [24, 32]
    assert kept_after_each(Retention(2, every_images=24), [8, 16, 24, 32, 40, 48, 56]) == [24, 48, 56]


def test_best_stays_and_the_earliest_of_equals() -> None:
    scores = {8: 20.0, 16: 25.0, 24: float("nan"), 32: 25.0, 40: 24.0}
    assert kept_after_each(Retention(1, scores=lambda: scores), [8, 16, 24, 32, 40]) == [16, 40]
    assert kept_after_each(Retention(1, scores=dict), [8, 16]) == [16]


def test_one_saved_on_request_takes_nobody_s_place_and_leaves_with_the_next() -> None:
    rule = Retention(2, is_scheduled=lambda seen: seen % 8 == 0, scores=lambda: {8: 1.0, 20: 9.0})
    assert kept_after_each(rule, [8, 16, 20]) == [8, 16, 20]
    assert kept_after_each(rule, [8, 16, 20, 24]) == [8, 16, 24]
    assert kept_after_each(rule, [8, 16, 24]) == [8, 16, 24]


def test_validations_come_from_the_metrics_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    assert file.validations("psnr_y") == {}
    file.write(8, {"generator/pixel": 0.1})
    file.write(8, {"Set5/psnr_y": 20.0, "Set14/psnr_y": 22.0, "Set5/bicubic_psnr_y": 1.0, "Set5/lpips": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"images_seen": 16, "Set5/psn')
    assert file.validations("psnr_y") == {8: 21.0}
    assert file.validations("Set14/psnr_y") == {8: 22.0}
    assert file.validations("lpips") == {8: 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_every_images": 12}, "keep_every_images=12 is not a multiple of checkpoint_every_images=8"),
        ({"keep_every_images": -8}, "keep_every_images=-8 must be 0 or above"),
        ({"keep_best": "psnr_y"}, "neither of validate_every_images=12 and checkpoint_every_images=8"),
        ({"keep_best": "psnr_y", "validation_sets": ()}, "keep_best='psnr_y' needs validation_sets"),
    ],
)
def test_rule_when_it_cannot_work_is_refused(preset: Preset, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(preset.train.report, **changes)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("retention"))


def test_run_when_resumed_keeps_what_an_undisturbed_one_keeps(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    report = dataclasses.replace(
        preset.train.report,
        validate_every_images=4,
        checkpoint_every_images=4,
        keep_checkpoints=1,
        keep_every_images=12,
        metrics=("psnr_y", "spectrum"),
        keep_best="spectrum",
    )
    # Nothing improves, so that the best is the first, which is none of the newest.
    schedule = dataclasses.replace(preset.train.schedule, generator_learning_rate=1e-12)
    preset = changed(preset, report=report, schedule=schedule)
    straight, whole = tmp_path / "straight", tmp_path / "whole"
    run_session(preset, straight)
    assert set(MetricsFile(straight / "metrics.jsonl").validations("spectrum")) == {4, 8, 12, 16, 20, 24}
    assert saved_positions(straight) == [4, 12, 24]
    assert read_metadata(straight / "export" / "generator_best.safetensors")["images_seen"] == "4"
    for stop_at in (8, 16, 20, None):
        run_session(preset, whole, stop_at)
    assert saved_positions(whole) == saved_positions(straight)

    wrong = changed(preset, report=dataclasses.replace(report, keep_best="lpips"))
    with pytest.raises(ConfigError, match=r"keep_best='lpips' is no metric of the validation: psnr_y, spectrum, valid"):
        run_session(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()

"""Validations: chosen metrics, the best one with its direction, and the end of a run that no longer improves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from harness import changed, prepare_tiny_data, write_photos
from safetensors.torch import load_file
from sessions import assert_same_end, lines_of, run_session, saved_positions

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.metrics.criterion import Criterion, best_position, find_criterion
from pipeline.run.dry_run import describe
from pipeline.run.validation import Validation, find_validation_metrics
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers
from pipeline.train.report import MetricsFile
from pipeline.weights.files import read_metadata
from shards.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("validation"))
    return with_report(preset, metrics=("psnr_y", "spectrum"), validate_every_images=4, checkpoint_every_images=4)


@pytest.fixture
def preset(data: Preset, monkeypatch: pytest.MonkeyPatch) -> Preset:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    return data


def with_report(preset: Preset, **changes: Any) -> Preset:
    return changed(preset, report=dataclasses.replace(preset.train.report, **changes))


def with_patience(preset: Preset, images: int) -> Preset:
    """Nothing improves, so that the first of equal validations is the best; pixels until image 8."""
    schedule = dataclasses.replace(
        preset.train.schedule, generator_learning_rate=1e-12, stop_after_no_improvement_images=images
    )
    return changed(with_report(preset, keep_best="spectrum", keep_checkpoints=1), schedule=schedule)


def test_run_without_improvement_ends_where_it_does_when_resumed_and_trains_on_with_more_patience(
    preset: Preset, tmp_path: Path
) -> None:
    endless, patient = with_patience(preset, 0), with_patience(preset, 8)
    never, straight, pieces = tmp_path / "never", tmp_path / "straight", tmp_path / "pieces"
    run_session(endless, never)
    outcome, _ = run_session(patient, straight)
    assert (outcome.is_finished, outcome.images_seen) == (True, 16)  # 8 after the start of the adversarial stage
    assert json.loads((straight / "status.json").read_text())["state"] == "finished"
    for stop_at in (8, 12, None):
        outcome, _ = run_session(patient, pieces, stop_at)
    assert (outcome.is_finished, outcome.images_seen) == (True, 16)
    assert_same_end(pieces, straight)

    again, positions = run_session(patient, pieces)
    assert (again.is_finished, again.has_trained, positions) == (True, False, [])
    outcome, _ = run_session(endless, pieces)
    assert outcome.images_seen == 24
    assert lines_of(pieces) == lines_of(never)


def test_best_validation_s_average_is_exported_beside_the_last(preset: Preset, tmp_path: Path) -> None:
    run_session(with_report(preset, keep_best="psnr_y", keep_checkpoints=1), tmp_path / "run")
    values = MetricsFile(tmp_path / "run" / "metrics.jsonl").validations("psnr_y")
    best = max(values, key=lambda position: values[position])
    assert best in saved_positions(tmp_path / "run")
    exported = tmp_path / "run" / "export" / "generator_best.safetensors"
    assert read_metadata(exported)["images_seen"] == str(best)
    average = load_file(tmp_path / "run" / "checkpoints" / f"images-{best:010d}" / "average.safetensors")
    assert sorted(tensor.sum().item() for tensor in load_file(exported).values()) == sorted(
        tensor.sum().item() for tensor in average.values()
    )


def test_terminal_says_how_a_validation_compares(data: Preset, tmp_path: Path) -> None:
    config = dataclasses.replace(with_patience(data, 8).train, run_dir=tmp_path)
    record = MetricsFile(tmp_path / "metrics.jsonl")
    validation = Validation(config, find_validation_metrics(config), record, Backend(config.runtime, batch_size=4))

    def shown(images_seen: int, spectrum: float) -> list[str]:
        values = {"validation/psnr_y": 25.0, "validation/bicubic_psnr_y": 24.0, "validation/spectrum": spectrum}
        record.write(images_seen, values)
        return validation.lines(images_seen, values)

    of_set = "validation: PSNR-Y 25.00 dB (bicubic 24.00), spectrum {:.3f} dB (bicubic none)"
    assert shown(4, 9.0) == [of_set.format(9.0)]
    assert shown(8, 7.0) == [of_set.format(7.0), "spectrum 7.000 dB: the best so far, before it 9.000 dB at 4"]
    assert shown(12, 8.0)[1] == "spectrum 8.000 dB: the best is 7.000 dB at 8; ends at 16 without a better one"
    assert not validation.is_exhausted(12)
    shown(16, 7.5)
    assert validation.is_exhausted(16)
    assert not validation.is_exhausted(17)  # no validation


def test_lower_is_better_where_the_metric_says_so() -> None:
    values = {8: 0.3, 4: 0.2, 12: 0.2}
    assert best_position(Criterion("gmsd", METRICS["gmsd"]).scores(values)) == 4
    assert best_position(Criterion("psnr_y", METRICS["psnr_y"]).scores(values)) == 8
    assert best_position({}) is None
    both = {"psnr_y": METRICS["psnr_y"], "gmsd": METRICS["gmsd"]}
    assert find_criterion("Set5/gmsd", ["Set5"], both) == Criterion("Set5/gmsd", METRICS["gmsd"])


def test_metric_without_weights_on_any_rank_is_left_out_on_all_and_may_not_decide(data: Preset) -> None:
    config = with_report(data, metrics=("psnr_y", "gmsd"), keep_best="psnr_y").train
    found = find_validation_metrics(config, lambda missing: [missing[0], True])
    assert list(found.chosen) == ["psnr_y"]
    assert found.notes == ["validation: gmsd is not computed: needs the same on the other machines of this run"]
    with pytest.raises(ConfigError, match=r"keep_best='psnr_y' cannot be computed\n  validation: psnr_y is not comp"):
        find_validation_metrics(config, lambda missing: [True, missing[1]])
    with pytest.raises(ConfigError, match=r"report.metrics leaves nothing to compute"):
        find_validation_metrics(config, lambda missing: [True, True])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("psnr_y", "spectrun")}, r"report.metrics: .*spectrun.*spectrum"),
        ({"metrics": ("psnr_y",), "keep_best": "-psnr_y"}, r"report.keep_best='-psnr_y' is no metric"),
    ],
)
def test_names_are_refused_by_the_dry_run_as_by_the_run(
    data: Preset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    wrong = with_report(data, **changes)
    with pytest.raises(ConfigError, match=message):
        describe(wrong)
    with pytest.raises(ConfigError, match=message):
        run_session(wrong, tmp_path / "run")


def test_dry_run_names_the_metrics_and_what_ends_the_run(data: Preset) -> None:
    schedule = dataclasses.replace(data.train.schedule, stop_after_no_improvement_images=8)
    report = dataclasses.replace(data.train.report, metrics=("psnr_y", "gmsd"), keep_best="gmsd")
    text = describe(changed(data, schedule=schedule, report=report))
    assert "psnr_y, gmsd every 4 images; keeps the best by gmsd, ends when it is 8 images old" in text
    with pytest.raises(ConfigError, match=r"stop_after_no_improvement_images needs report.keep_best"):
        changed(data, schedule=schedule)


def test_image_smaller_than_a_metric_s_window_is_refused_before_the_run(preset: Preset, tmp_path: Path) -> None:
    write_photos(tmp_path / "small" / "HR", [(64, 64), (64, 20)])
    wrong = with_report(preset, validation_sets=(tmp_path / "small",))
    with pytest.raises(InputError, match=r"1 image\(s\).*\n.*photo1\.png: \S+ needs \d+ px .*got 56x12 px"):
        run_session(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()

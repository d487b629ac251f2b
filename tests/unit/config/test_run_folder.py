"""The configuration in a run folder: read back, kept across versions, and compared with another command's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from presets import PAPER_PRESETS, flagged, load

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import to_plain
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError


@pytest.mark.parametrize("name", ["demo", *PAPER_PRESETS])
def test_preset_survives_the_way_through_config_json(name: str, tmp_path: Path) -> None:
    preset = load(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_plain(preset)), encoding="utf-8")
    assert load(str(path)) == preset


@pytest.mark.parametrize(("pixel_only_images", "clock"), [(16, "run"), (0, "own")])
def test_run_that_is_older_than_the_discriminators_clock_keeps_its_schedule(
    pixel_only_images: int, clock: str, tmp_path: Path
) -> None:
    preset = load("demo")
    preset = replace(preset, train=replace(preset.train, run_dir=tmp_path))
    schedule = replace(preset.train.schedule, pixel_only_images=pixel_only_images)
    preset = replace(preset, train=replace(preset.train, schedule=schedule))
    plain = to_plain(preset)
    del plain["train"]["schedule"]["discriminator_clock"]
    RunFolder(tmp_path).config.write_text(json.dumps(plain), encoding="utf-8")
    assert RunFolder(tmp_path).read_config().train.schedule.discriminator_clock == clock
    if clock == "own":
        RunFolder(tmp_path).check(preset)
    else:
        with pytest.raises(ConfigError, match=r"(?s)clock: the run has 'run'.*Resume with its own: jobs/train_sed.py"):
            RunFolder(tmp_path).check(preset)


def test_run_folder_refuses_another_runs_settings_and_names_both_values(tmp_path: Path) -> None:
    run_dir = ("--run-dir", str(tmp_path))
    first = flagged(*run_dir)
    second = flagged(*run_dir, "--data.batch-size", "4")
    third = flagged(*run_dir, "--data.num-workers", "3")
    shards = load("demo").shards
    RunFolder(tmp_path).write_config(Preset(shards, first))
    RunFolder(tmp_path).check(Preset(shards, third))
    with pytest.raises(ConfigError, match=r"train.data.batch_size: the run has 8, the command says 4"):
        RunFolder(tmp_path).check(Preset(shards, second))

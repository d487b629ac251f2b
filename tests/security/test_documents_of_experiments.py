"""Documents of an experiment's folder and of jobs' outputs, and experiment files: typed, bounded, never in the way."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clear_errors import MAX_SECONDS, only_clear_errors
from fuzz import mutations
from harness import tiny_preset
from tiny_experiment import DOCUMENT

from jobs.command_line import PRESETS
from pipeline.config.plain import structure
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.experiments import picturing
from pipeline.experiments.execution import Layout, is_measured, read_seconds
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.measured_file import read_measured_file
from pipeline.experiments.measuring import read_measured
from pipeline.experiments.plan import Choices, PlannedRun, plan
from pipeline.inference.evaluation_report import is_evaluation, is_image_table
from pipeline.inference.visualise.request import is_document
from pipeline.runtime.backend import read_deepspeed_settings
from shards.degradation.recipe import load_recipe
from shards.errors import InputError
from shards.format.storage import parse_local_path, parse_path

DIGEST = "ab" * 32
IMAGE = {"psnr_y": 30.0, "bicubic_psnr_y": 28.0}
MEASURED: dict[str, Any] = {
    "model": "run",
    "weights_sha256": DIGEST,
    "scale": 4,
    "protocol": "Y of the rounded image",
    "sets": {
        "Set5": {
            "mean": {"psnr_y": 30.0, "bicubic_psnr_y": None},
            "interval": {"psnr_y": [29.0, 31.0], "bicubic_psnr_y": None},
            "images": {"baby": IMAGE, "bird": {**IMAGE, "psnr_y": None}},
        }
    },
    "not_computed": {"lpips": "its package"},
    "photo_notes": {"alpha": 1},
    "faults": ["x.png cannot be read"],
}
MARKS = picturing._Marks(DIGEST, None, ("psnr_y",), ("Set5",))
BUDGET = {**DOCUMENT["budgets"]["cpu"], "train": {"data": {"batch_size": 4}}}
EXPERIMENT = DOCUMENT | {"budgets": {"cpu": BUDGET}}


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    return PlannedRun("plain", 1, tiny_preset(tmp_path / "run"))


def test_measured_document_when_any_field_is_anything_is_numbers_of_its_images_or_refused(
    run: PlannedRun, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    layout.measured(run).parent.mkdir(parents=True)
    taken = 0
    for what, changed in mutations(MEASURED, 1000, seed=6):
        layout.measured(run).write_text(json.dumps(changed))
        assert not is_measured(run, layout), what  # nothing was trained
        with only_clear_errors(what):
            found = read_measured(run, layout)
            taken += 1
            for image in found.images:
                path = layout.pictures / "HR" / f"{image}.png"
                assert Path(os.path.normpath(path)).parent.parent == layout.pictures / "HR", what
            assert all(len(values) == len(found.images) for values in found.values.values())
            assert all(abs(value) < 1e300 or math.isnan(value) for values in found.values.values() for value in values)
    assert 20 < taken < 500


def test_names_of_images_that_lead_out_of_the_folder_of_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed-1.json"
    outside = [("..", "x"), (".", "x"), ("a/../..", "x"), ("Set5", "../../../x"), ("Set5", "a\0"), ("Set5", "..")]
    for set_name, image in outside:
        one = {**MEASURED["sets"]["Set5"], "images": {image: IMAGE}}
        path.write_text(json.dumps(MEASURED | {"sets": {set_name: one}}))
        with pytest.raises(InputError, match="must be the name of a file"):
            read_measured_file(path)
    unusual = {"..x": IMAGE, "a b": IMAGE, "<b>": IMAGE, os.fsdecode(b"\xff"): IMAGE, "\U0001f600": IMAGE, "x\n": IMAGE}
    one = {**MEASURED["sets"]["Set5"], "images": unusual}
    path.write_text(json.dumps(MEASURED | {"sets": {"Set5": one}}))
    assert list(read_measured_file(path).sets["Set5"].images) == list(unusual)


def test_marker_of_pictures_when_any_field_is_anything_is_ignored_or_numbers(tmp_path: Path) -> None:
    marker = tmp_path / "plain.json"
    found = {0.25: {"psnr_y": np.array([30.0, math.inf])}, 0.5: {"psnr_y": np.array([math.nan, 29.0])}}
    picturing._write(marker, MARKS, found)
    document = json.loads(marker.read_bytes(), parse_constant=lambda text: pytest.fail(f"{text} is not strict JSON"))
    known = picturing._read(marker, MARKS, 2)
    assert known is not None
    assert np.array_equal(known[0.25]["psnr_y"], [30.0, math.nan], equal_nan=True)
    for what, changed in mutations(document, 1000, seed=7):
        marker.write_text(json.dumps(changed))
        with only_clear_errors(what):
            known = picturing._read(marker, MARKS, 2) or {}
            values = [value for by_metric in known.values() for row in by_metric.values() for value in row]
            assert set(known) <= set(picturing.SHARES), what
            assert len(values) <= 4, what
            assert all(abs(value) < 1e300 or math.isnan(value) for value in values), what


def test_experiment_file_when_any_field_is_anything_is_planned_or_refused() -> None:
    def planned(document: Any) -> None:
        plan(structure(document, Experiment, "x"), Choices(Path("out"), "cpu"), PRESETS)

    planned(EXPERIMENT)  # whole, it is planned; and no later call's time has torch's import in it
    for what, changed in mutations(EXPERIMENT, 1000, seed=8):
        with only_clear_errors(f"experiment {what}"):
            planned(changed)


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "sparse"])
def test_file_that_is_none_delays_no_job(kind: str, run: PlannedRun, tmp_path: Path) -> None:
    layout, path = Layout(tmp_path), tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as stream:
            stream.truncate(2**40)
    else:
        path.symlink_to(kind)
    layout.measured(run).parent.mkdir(parents=True)
    layout.measured(run).symlink_to(path)
    began_s = time.monotonic()
    assert not is_measured(run, layout)
    assert read_seconds(path) == 0
    assert not any(recognise(path) for recognise in (is_evaluation, is_image_table, is_document))
    assert picturing._read(path, MARKS, 2) is None
    for read, error in ((read_measured_file, InputError), (read_deepspeed_settings, ConfigError)):
        with pytest.raises(error):
            read(path)
    assert time.monotonic() - began_s < MAX_SECONDS


@pytest.mark.parametrize("content", ["-1\n", "nan\n", "inf\n", "1e999\n", "x\n", "", "9" * 5000])
def test_seconds_that_are_no_time_are_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text(content)
    assert read_seconds(tmp_path / "seconds") == 0


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "\0", "x" * 2**23, "[" * 100_000])
def test_toml_that_exhausts_a_parser_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with only_clear_errors("recipe"), pytest.raises(InputError):
        load_recipe(path)
    with only_clear_errors("preset"), pytest.raises(ConfigError):
        PRESETS.load(str(path), Preset)


@pytest.mark.parametrize("content", ["[" * 100_000, "NaN", "[]", '{"a": 1e999}', '{"optimizer": 1}'])
def test_deepspeed_settings_that_are_none_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(content)
    with pytest.raises(ConfigError):
        read_deepspeed_settings(tmp_path / "ds.json")


@pytest.mark.parametrize("parse", [parse_path, parse_local_path])
@pytest.mark.parametrize("text", ["9" * 256, "a/" * 2048 + "a", "a\0b", "~\0", "\ud800", "file://" + "x" * 300])
def test_path_that_no_system_call_takes_is_refused_where_it_is_written(
    parse: Callable[[str], object], text: str
) -> None:
    with pytest.raises(InputError, match=r"the path .* (is too long|holds)"):
        parse(text)


def test_path_of_255_bytes_and_one_of_other_bytes_are_taken() -> None:
    for text in ("é" * 127 + "x", os.fsdecode(b"/tmp/\xff")):
        assert parse_path(text) == parse_local_path(text) == Path(text)

"""Presets and flags that do not exist, or hold what no job can use."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Main, write_photos

import jobs.cache_features
import jobs.evaluate
import jobs.promote
import jobs.shard
import jobs.train_sed
import jobs.ui
import jobs.upscale


@pytest.mark.parametrize("main", [jobs.shard.main, jobs.cache_features.main, jobs.train_sed.main])
def test_preset_when_unknown_names_the_nearest(refuse: Callable[..., None], main: Main) -> None:
    refuse(main, ["rrdb_sed_q_x4"], "unknown preset 'rrdb_sed_q_x4', did you mean 'rrdb_sed_", "known presets: demo")


def test_preset_when_its_file_is_missing(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["mine.toml"], "preset file mine.toml does not exist", "known presets: demo")


def test_preset_when_it_is_no_toml(refuse: Callable[..., None], here: Path) -> None:
    (here / "mine.toml").write_text("[shards\nsource = ")
    refuse(jobs.train_sed.main, ["mine.toml"], "preset mine.toml cannot be read", "line 1")


def test_preset_when_a_key_is_misspelt_names_the_nearest(refuse: Callable[..., None], here: Path) -> None:
    demo = (Path(jobs.train_sed.__file__).parent / "presets" / "demo.toml").read_text()
    (here / "mine.toml").write_text(demo.replace("batch_size", "batchsize").replace('"vanilla"', '"vanila"'))
    words = ("unknown key 'batchsize', did you mean 'batch_size'?", "train.data", "vanila", "train.losses.adversarial")
    refuse(jobs.train_sed.main, ["mine.toml"], *words)


@pytest.mark.parametrize(
    ("main", "flag", "nearest"),
    [
        (jobs.shard.main, "--sub-imag-px", "--sub-image-px"),
        (jobs.train_sed.main, "--data.crop-pz", "--data.crop-px"),
        (jobs.cache_features.main, "--data.crop-pz", "--data.crop-px"),
        (jobs.evaluate.main, "--set", "--sets"),
        (jobs.upscale.main, "--tile", "--tile-px"),
        (jobs.promote.main, "--names", "--name"),
        (jobs.ui.main, "--prt", "--port"),
    ],
)
def test_flag_when_misspelt_names_the_nearest(refuse: Callable[..., None], main: Main, flag: str, nearest: str) -> None:
    refuse(main, [flag, "3"], flag, nearest)


def test_flag_when_its_value_is_no_number(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["--data.batch-size", "many"], "--data.batch-size", "many")


def test_flag_when_its_value_breaks_a_rule_names_the_nearest(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["--data.crop-px", "50"], "crop_px=50 is not a multiple of 16; nearest is 48")


def test_shard_when_values_are_out_of_range_lists_them(refuse: Callable[..., None], here: Path) -> None:
    write_photos(here / "photos", [(140, 140)])
    arguments = ["--source", "photos", "--exclude", "--sub-image-px", "130", "--variants", "0"]
    refuse(jobs.shard.main, arguments, "sub_image_px=130 is not a multiple of scale=4", "variants=0 must be at least 1")


def test_ui_when_the_port_is_taken(refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refuse(jobs.ui.main, ["--port", str(port)], f"port {port} on 127.0.0.1 cannot be used", "make ui PORT=")

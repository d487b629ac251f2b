"""Preset files: on a base or whole, strict, and every fault told at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from presets import load

from jobs.command_line import PRESETS
from pipeline.config.plain import structure, to_plain
from pipeline.config.presets import PresetFolder
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from shards.config import ShardConfig


def test_faulty_preset_lists_every_fault_with_path_and_nearest_name(tmp_path: Path) -> None:
    text = (PRESETS.path / "demo.toml").read_text(encoding="utf-8")
    path = tmp_path / "faulty.toml"
    text = text.replace("crop_px = 96", "crop_pxx = 96").replace("total_images = 2_800", 'total_images = "many"')
    path.write_text(text.replace('architecture = "patch"', 'architecture = "pach"'), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    message = str(caught.value)
    assert "unknown key 'crop_pxx', did you mean 'crop_px'? @ $.train.data" in message
    assert "expected a whole number, got 'many' @ $.train.schedule.total_images" in message
    assert "no discriminator is named 'pach'; did you mean patch? @ $.train.discriminator" in message
    assert str(path) in message


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_preset_on_a_base_states_only_what_differs(tmp_path: Path) -> None:
    first = write(tmp_path / "first.toml", 'base = "rrdb_sed_p_x4"\n[train]\nseed = 7\n[train.data]\ncrop_px = 128\n')
    second = write(tmp_path / "second.toml", 'base = "first.toml"\n[train.data]\nbatch_size = 16\n')
    shipped, child, grandchild = load("rrdb_sed_p_x4"), load(str(first)), load(str(second))
    assert child.shards == shipped.shards
    assert child.train == replace(shipped.train, seed=7, data=replace(shipped.train.data, crop_px=128))
    assert grandchild.train == replace(child.train, data=replace(child.train.data, batch_size=16))


def test_preset_that_names_another_architecture_inherits_none_of_the_options(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "demo"\n[train.discriminator]\narchitecture = "unet"\n')
    with pytest.raises(ConfigError, match=r"required field missing @ \$.train.discriminator.semantic"):
        load(str(path))


def test_fault_of_a_base_names_the_file_that_holds_it(tmp_path: Path) -> None:
    base = write(tmp_path / "base.toml", 'base = "demo"\n[train]\nseeed = 1\n[train.data]\ncrop_px = 48\n')
    child = write(tmp_path / "child.toml", 'base = "base.toml"\n[train.data]\nbatch_size = "8"\n')
    with pytest.raises(ConfigError) as caught:
        load(str(child))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{child}: 2 fault(s)"
    assert f"  unknown key 'seeed', did you mean 'seed'? @ $.train.seeed in {base}" in lines
    assert "  expected a whole number, got '8' @ $.train.data.batch_size" in lines


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ('"rrdb_sed_q_x4"', "base of preset .*mine.toml: unknown preset 'rrdb_sed_q_x4', did you mean 'rrdb_sed_"),
        ('"other.toml"', "base of preset .*mine.toml: preset file .*other.toml does not exist"),
        ('"mine.toml"', "preset bases form a cycle: .*mine.toml -> .*mine.toml; remove one `base`"),
        ('"back.toml"', "form a cycle: .*mine.toml -> .*back.toml -> .*mine.toml"),
        ("3", "mine.toml: base=3 must be the name of a preset, or a file beside this one"),
    ],
)
def test_base_that_cannot_be_used_is_refused(tmp_path: Path, base: str, words: str) -> None:
    write(tmp_path / "back.toml", 'base = "mine.toml"\n')
    with pytest.raises(ConfigError, match=words):
        load(str(write(tmp_path / "mine.toml", f"base = {base}\n")))


def test_table_alone_is_read_without_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'base = "demo"\n[shards]\nvariants = 9\n[train]\nno_such_key = 1\n')
    assert PRESETS.load(str(path), ShardConfig, table="shards").variants == 9
    write(path, "[shard]\nvariants = 9\n")
    with pytest.raises(ConfigError, match=r"mine.toml has no table \[shards\]; got shard"):
        PRESETS.load(str(path), ShardConfig, table="shards")
    write(path, 'base = "demo"\n[shards]\nvariant = 9\n')
    with pytest.raises(ConfigError, match=r"unknown key 'variant', did you mean 'variants'\? @ \$.shards.variant"):
        PRESETS.load(str(path), ShardConfig, table="shards")


def test_folder_of_presets_is_the_callers_choice(tmp_path: Path) -> None:
    write(tmp_path / "mine.toml", 'base = "theirs"\n')
    (tmp_path / "theirs.toml").write_bytes((PRESETS.path / "demo.toml").read_bytes())
    assert PresetFolder(tmp_path).names() == ["mine", "theirs"]
    assert PresetFolder(tmp_path).load("mine", Preset) == load("demo")


def test_preset_with_a_missing_key_is_refused(tmp_path: Path) -> None:
    plain = to_plain(load("demo"))
    del plain["train"]["schedule"]["gamma"]
    with pytest.raises(ConfigError, match=r"required field missing @ \$.train.schedule.gamma"):
        structure(plain, Preset, "preset")


@pytest.mark.parametrize("value", [True, "8", 8.5, None])
def test_batch_size_of_another_type_is_refused_not_converted(value: object) -> None:
    plain = to_plain(load("demo"))
    plain["train"]["data"]["batch_size"] = value
    with pytest.raises(ConfigError, match="batch_size"):
        structure(plain, Preset, "preset")


def test_semantic_layer_is_a_whole_number_or_a_name() -> None:
    plain = to_plain(load("demo"))
    plain["train"]["semantics"]["layer"] = True
    with pytest.raises(ConfigError, match=r"expected a whole number or a name, got True @ \$.train.semantics.layer"):
        structure(plain, Preset, "preset")
    plain["train"]["semantics"] |= {"layer": 3, "architecture": "resnet50"}
    with pytest.raises(
        ConfigError, match=r"'resnet50' names no vision model; use open_clip:NAME.* @ \$.train.semantics"
    ):
        structure(plain, Preset, "preset")


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rrdb_sed_p_x4'"):
        load("rrdb_sed_px4")

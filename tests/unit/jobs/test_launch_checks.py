"""What the launcher asked for against what there is, and which DeepSpeed files are taken."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import pipeline.run.record
from pipeline.errors import ConfigError
from pipeline.runtime.backend import deepspeed_settings
from pipeline.runtime.launch import (
    check_batch,
    check_installed,
    check_launcher,
    check_world,
    deepspeed_config_path,
    launched_world_size,
    wants_deepspeed,
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_world_when_nobody_launched_is_one_process() -> None:
    assert launched_world_size() == 1
    check_world(1, 0)


@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (4, 1)])
def test_world_when_the_library_sees_another_is_refused(
    monkeypatch: pytest.MonkeyPatch, world_size: int, rank: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    check_world(2, 1)
    with pytest.raises(ConfigError) as caught:
        check_world(world_size, rank)
    message = str(caught.value)
    assert f"started 2 process(es) and this is rank 1, but the library sees {world_size} and rank {rank}." in message
    assert "accelerate launch --config_file infra/accelerate/cpu_2.yaml jobs/train_sed.py" in message


def test_launcher_when_it_was_asked_for_more_than_it_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    check_launcher()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match="asked for several processes but started this one alone"):
        check_launcher()
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launcher()


def test_settings_when_in_bf16_tell_the_engine_of_the_autocast() -> None:
    assert deepspeed_settings(3, 0.0, "bf16")["torch_autocast"]["enabled"] is True
    assert deepspeed_settings(3, 0.0)["torch_autocast"]["enabled"] is False


def test_command_in_the_refusal_names_a_file_that_exists() -> None:
    assert (Path(__file__).resolve().parents[3] / "infra" / "accelerate" / "cpu_2.yaml").is_file()


@pytest.mark.parametrize(("batch_size", "world_size", "share"), [(8, 1, 8), (8, 2, 4), (12, 12, 1)])
def test_batch_when_it_divides_is_shared(batch_size: int, world_size: int, share: int) -> None:
    assert check_batch(batch_size, world_size) == share


def test_batch_when_it_does_not_divide_is_refused_with_what_fits() -> None:
    with pytest.raises(ConfigError) as caught:
        check_batch(8, 3)
    assert "data.batch_size=8 images per step cannot be split over 3 processes" in str(caught.value)
    assert "Use 1, 2, 4, 8 processes, or set --data.batch-size to a multiple of 3" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "wanted"), [("true", True), ("True", True), ("false", False), ("", False), (None, False)]
)
def test_deepspeed_when_accelerate_says_so_is_wanted(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool
) -> None:
    if value is not None:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", value)
    assert wants_deepspeed() is wanted


def test_backend_when_it_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else name)
    check_installed()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(
        ConfigError, match=r"(?s)but deepspeed cannot be imported.*pip install -e '\.\[deepspeed\]'; or train with"
    ):
        check_installed()
    assert (Path(__file__).resolve().parents[3] / "infra" / "accelerate" / "node.yaml").is_file()


def test_config_path_when_accelerate_writes_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deepspeed_config_path() is None
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "None")
    assert deepspeed_config_path() is None
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "zero.json")
    assert deepspeed_config_path() == "zero.json"


def give(monkeypatch: pytest.MonkeyPatch, path: Path, content: str) -> Path:
    path.write_text(content)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    return path


def test_settings_when_no_file_is_given_are_stage_1_with_every_size_written_out() -> None:
    settings = deepspeed_settings(3, 0.5)
    assert settings["zero_optimization"] == {"stage": 1}
    assert settings["train_micro_batch_size_per_gpu"] == 3
    assert settings["gradient_accumulation_steps"] == 1
    assert settings["gradient_clipping"] == 0.5
    assert settings["managed_gradient_accumulation"] is False


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_settings_when_a_file_is_given_keep_what_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: int
) -> None:
    zero = {"stage": stage, "allgather_bucket_size": 1234}
    give(monkeypatch, tmp_path / "zero.json", json.dumps({"zero_optimization": zero, "wall_clock_breakdown": True}))
    settings = deepspeed_settings(3, 0.0)
    assert settings["zero_optimization"] == zero
    assert settings["wall_clock_breakdown"] is True
    assert settings["train_micro_batch_size_per_gpu"] == 3


def test_settings_file_may_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text('{"wall_clock_breakdown": true}')
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/zero.json", "${HOME}/zero.json"):
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", path)
        assert deepspeed_settings(3, 0.0)["wall_clock_breakdown"] is True


@pytest.mark.parametrize("stage", [4, -1, "auto"])
def test_settings_when_the_stage_is_not_supported_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: object
) -> None:
    give(monkeypatch, tmp_path / "zero.json", json.dumps({"zero_optimization": {"stage": stage}}))
    with pytest.raises(ConfigError, match=rf"zero\.json: zero_optimization\.stage={stage}; .*stages 0 to 3"):
        deepspeed_settings(3, 0.0)


@pytest.mark.parametrize("key", ["bf16", "fp16", "optimizer", "scheduler", "gradient_clipping"])
def test_settings_when_the_file_sets_what_the_preset_decides_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    give(monkeypatch, tmp_path / "zero.json", json.dumps({key: {"enabled": True}}))
    with pytest.raises(ConfigError, match=rf"zero\.json sets {key}, which the preset decides; remove it there"):
        deepspeed_settings(3, 0.0)


@pytest.mark.parametrize(("content", "text"), [("{", "cannot be read"), ("[1]", "is not a JSON object")])
def test_settings_when_the_file_is_no_json_object_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, text: str
) -> None:
    give(monkeypatch, tmp_path / "zero.json", content)
    with pytest.raises(ConfigError, match=rf"DeepSpeed configuration .*zero\.json {text}"):
        deepspeed_settings(3, 0.0)
    (tmp_path / "zero.json").unlink()
    with pytest.raises(ConfigError, match=r"cannot be read: .*No such file"):
        deepspeed_settings(3, 0.0)


def test_files_that_come_with_the_project_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((Path(__file__).resolve().parents[3] / "infra").rglob("*.json"))
    assert files
    for path in files:
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
        assert deepspeed_settings(2, 0.0)["zero_optimization"]["stage"] in (0, 1, 2, 3)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"zero_optimization": null}', b'{"zero_optimization": true}'])
def test_settings_when_the_file_is_odd_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    give(monkeypatch, tmp_path / "zero.json", "").write_bytes(content)
    with pytest.raises(ConfigError):
        deepspeed_settings(3, 0.0)


def test_versions_omit_an_optional_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline.run.record.installed_versions().keys() >= {"torch", "accelerate"}
    monkeypatch.setattr(pipeline.run.record, "LIBRARIES", ("numpy", "no-such-library"))
    assert pipeline.run.record.installed_versions().keys() == {"numpy"}

"""The estimate of a step's memory, the micro-batch that follows from it, and what is said where memory ran out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import changed, prepare_tiny_data, tiny_preset
from safetensors.torch import load_file
from sessions import run_session

import pipeline.run.memory
import pipeline.run.record
from pipeline.config.schema import Preset, TrainConfig
from pipeline.errors import ConfigError
from pipeline.run.dry_run import describe
from pipeline.run.hollow import build_hollow
from pipeline.run.memory import HEADROOM, estimate_memory, largest_micro_batch, naming_memory, resolve_micro_batch
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_preset(tmp_path, **{"losses.perceptual_weight": 1.0}).train


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("memory"))
    return changed(preset, report=replace(preset.train.report, validation_sets=()))


def with_micro_batch(config: TrainConfig, size: Any) -> TrainConfig:
    return replace(config, runtime=replace(config.runtime, micro_batch_size=size))


def needed(config: TrainConfig, num_images: int) -> int:
    return estimate_memory(config, build_hollow(config), num_images).total_bytes


def test_every_image_has_the_same_activations_and_the_perceptual_network_s_are_among_them(config: TrainConfig) -> None:
    hollow = build_hollow(config)
    four, six, eight = (estimate_memory(config, hollow, number) for number in (4, 6, 8))
    # What does not depend on the images are the discriminator's weights after spectral normalisation.
    assert eight.activation_bytes - six.activation_bytes == six.activation_bytes - four.activation_bytes
    assert eight.state_bytes == four.state_bytes
    without = replace(config, losses=replace(config.losses, perceptual_weight=0.0))
    assert estimate_memory(without, build_hollow(without), 4).activation_bytes < four.activation_bytes


def test_micro_batch_is_the_largest_that_fits_with_headroom(config: TrainConfig) -> None:
    enough = HEADROOM * needed(config, 3)
    assert largest_micro_batch(config, 8, int(enough) + 1) == 3
    assert largest_micro_batch(config, 8, int(enough) - 1) == 2
    assert largest_micro_batch(config, 2, int(enough)) == 2
    assert largest_micro_batch(config, 8, 1) == 1


def test_automatic_size_is_of_the_device_and_all_at_once_where_all_fit(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic = with_micro_batch(config, "auto")
    backend = Backend(automatic.runtime, batch_size=automatic.data.batch_size)
    assert resolve_micro_batch(automatic, backend).runtime.micro_batch_size == 0
    monkeypatch.setattr(pipeline.run.memory, "available_bytes", lambda device: int(HEADROOM * needed(config, 2)) + 1)
    assert resolve_micro_batch(automatic, backend).runtime.micro_batch_size == 2
    assert resolve_micro_batch(config, backend) is config


def test_run_with_the_automatic_size_is_the_run_with_that_size(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    monkeypatch.setattr(pipeline.run.memory, "available_bytes", lambda device: 1)
    for name, size in (("one", 1), ("auto", "auto")):
        run_session(changed(preset, runtime=with_micro_batch(preset.train, size).runtime), tmp_path / name)
    one, automatic = (load_file(tmp_path / name / "export" / "generator.safetensors") for name in ("one", "auto"))
    assert all(torch.equal(one[name], automatic[name]) for name in one)
    assert '"micro_batch_size": "auto"' in (tmp_path / "auto" / "config.json").read_text()


def test_memory_that_ran_out_is_reported_with_a_size_that_fits(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.memory, "available_bytes", lambda device: int(HEADROOM * needed(config, 2)) + 1)
    backend = Backend(config.runtime, batch_size=config.data.batch_size)
    expected = r"memory ran out on cpu .* --runtime\.micro-batch-size 2, with the same"
    with pytest.raises(ConfigError, match=expected), naming_memory(config, backend):
        torch.empty(1 << 60)


def test_size_that_was_too_large_is_halved_though_the_estimate_allows_it(config: TrainConfig) -> None:
    backend = Backend(config.runtime, batch_size=config.data.batch_size)
    two, one = (naming_memory(with_micro_batch(config, size), backend) for size in (2, 1))
    with pytest.raises(ConfigError, match=r"--runtime\.micro-batch-size 1, with"), two:
        torch.empty(1 << 60)
    with pytest.raises(ConfigError, match=r"per pass; take a smaller --data\.crop-px than 48"), one:
        torch.empty(1 << 60)


def test_other_errors_are_left_as_they_are(config: TrainConfig) -> None:
    backend = Backend(config.runtime, batch_size=config.data.batch_size)
    with pytest.raises(RuntimeError, match="must match"), naming_memory(config, backend):
        torch.add(torch.ones(2), torch.ones(3))


def test_dry_run_says_that_the_size_follows_from_the_memory(tmp_path: Path) -> None:
    preset = tiny_preset(tmp_path)
    text = describe(changed(preset, runtime=with_micro_batch(preset.train, "auto").runtime))
    assert "as many at a time as fit in memory" in text

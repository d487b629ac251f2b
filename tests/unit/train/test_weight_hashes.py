"""A run's tracker knows which weights it starts from, and which frozen ones it is trained with."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from sessions import run_session

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.models.discriminators import FeatureOptions
from pipeline.models.generators import SRVGGNetCompact, save_generator
from pipeline.tracking import RunDescription, Trackers


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    preset = prepare_tiny_data(tmp_path_factory.mktemp("hashes"))
    return changed(preset, report=replace(preset.train.report, validation_sets=()))


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[RunDescription]:
    found: list[RunDescription] = []
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *call: found.append(call[1]) or Trackers())
    return found


def hashes(description: RunDescription) -> dict[str, str]:
    start = "weights_sha256."
    return {name.removeprefix(start): value for name, value in description.tags.items() if name.startswith(start)}


def test_hashes_are_of_initial_files_and_of_networks_of_losses(
    preset: Preset, described: list[RunDescription], tmp_path: Path
) -> None:
    train, file = preset.train, tmp_path / "start.safetensors"
    torch.manual_seed(0)
    save_generator(file, SRVGGNetCompact(8, 2, 4))
    losses = replace(train.losses, perceptual="vgg19", perceptual_weights="random", perceptual_weight=1.0)
    run_session(
        changed(preset, generator=replace(train.generator, initial_weights=file), losses=losses), tmp_path / "a"
    )
    run_session(changed(preset, losses=replace(losses, perceptual_seed=7)), tmp_path / "b")
    first, other = map(hashes, described)
    assert first["generator_initial"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(first) == {"generator_initial", "perceptual"}
    assert set(other) == {"perceptual"}
    assert first["perceptual"] != other["perceptual"]
    assert all(len(digest) == 64 for digest in first.values())


def test_hash_of_a_discriminator_s_frozen_network_is_that_of_its_weights(
    preset: Preset, described: list[RunDescription], tmp_path: Path
) -> None:
    options = FeatureOptions(backbone="timm:test_resnet", layers=(2,), weights="random", num_features=4, semantic=False)
    run_session(changed(preset, discriminator=options), tmp_path / "run")
    (found,) = map(hashes, described)
    assert set(found) == {"discriminator_frozen"}
    assert len(found["discriminator_frozen"]) == 64

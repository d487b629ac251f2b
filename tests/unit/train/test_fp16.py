"""Half precision with a scaled loss: an overflow costs an update and half of the scale, and a resume is exact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data, runtime_config
from safetensors.torch import load_file
from sessions import assert_same_end, lines_of, run_session
from torch import nn

import pipeline.run.record
from pipeline.errors import ConfigError
from pipeline.runtime.backend import Backend
from pipeline.runtime.trainable import DdpTrainable
from pipeline.tracking import Trackers


def network(*, scale: float = 1024.0) -> DdpTrainable:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    return DdpTrainable(module, module, torch.optim.Adam(module.parameters(), fused=True), 0.0, scaler)


def train_once(trainable: DdpTrainable, factor: float = 1.0) -> float:
    trainable.backward(factor * trainable(torch.ones(4, 3)).square().sum())
    return float(trainable.step(0.1))


def scale_of(trainable: DdpTrainable) -> list[float]:
    return [float(value) for value in trainable.optimizer_state()["loss_scale"].values()]


def test_scale_when_gradients_overflow_halves_and_grows_again() -> None:
    trainable = network()
    assert train_once(trainable) == 0
    weight = trainable.bare.weight.detach().clone()
    assert train_once(trainable, 1e38) == 1  # finite itself, but not times the scale
    assert torch.equal(trainable.bare.weight, weight)
    assert scale_of(trainable) == [512, 0]
    assert [train_once(trainable) for _ in range(3)] == [0, 0, 0]
    assert scale_of(trainable) == [1024, 0]


def test_scale_when_it_changes_does_not_change_the_update() -> None:
    one, other = network(scale=1.0), network(scale=4096.0)
    for trainable in (one, other):
        train_once(trainable)
    assert torch.equal(one.bare.weight, other.bare.weight)


def test_scale_when_restored_is_the_saved_one() -> None:
    trainable, resumed = network(), network(scale=2.0)
    train_once(trainable)
    train_once(trainable, 1e38)
    train_once(trainable)
    state = trainable.optimizer_state()
    resumed.load_optimizer_state(state)
    assert scale_of(resumed) == scale_of(trainable) == [512, 1]


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


def test_run_in_fp16_resumes_exactly_and_learns(tmp_path: Path, untracked: None) -> None:
    preset = prepare_tiny_data(tmp_path)
    preset = changed(preset, runtime=dataclasses.replace(preset.train.runtime, precision="fp16"))
    run_session(preset, tmp_path / "straight")
    assert not run_session(preset, tmp_path / "stopped", stop_at=12)[0].is_finished
    run_session(preset, tmp_path / "stopped")
    assert_same_end(tmp_path / "stopped", tmp_path / "straight")
    newest = max((tmp_path / "stopped" / "checkpoints").iterdir())
    assert "loss_scale/scale" in load_file(newest / "generator_optimizer.safetensors")
    losses = [line["generator/pixel"] for line in lines_of(tmp_path / "straight") if "generator/pixel" in line]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_fp16_with_cuda_graphs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision='fp16' needs cuda_graphs=false; or use precision='bf16'"):
        runtime_config(precision="fp16", cuda_graphs=True)
    assert runtime_config(precision="bf16", cuda_graphs=True).cuda_graphs


def test_fp16_when_it_cannot_be_had_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = prepare_tiny_data(tmp_path).train.runtime
    with pytest.raises(ConfigError, match="precision='fp16' needs discriminator_pass='separate'"):
        dataclasses.replace(runtime, precision="fp16", discriminator_pass="shared")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"precision='fp16' does not work under DeepSpeed.*bf16"):
        Backend(dataclasses.replace(runtime, precision="fp16"), batch_size=4)

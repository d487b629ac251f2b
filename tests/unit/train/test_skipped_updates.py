"""Skipped updates: what stays unchanged, what is counted, when a run ends, and resuming through them."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from safetensors.torch import load_file
from sessions import lines_of, run_session
from torch import Tensor, nn

import pipeline.run.record
import pipeline.run.session
from pipeline.config.schema import Preset
from pipeline.data.batch import Batch
from pipeline.errors import NonFiniteError
from pipeline.run.inputs import StepInputs
from pipeline.runtime.trainable import DdpTrainable, poisoned
from pipeline.tracking import Trackers
from pipeline.train.micro_batches import StepInput
from pipeline.train.report import RunningMeans
from pipeline.train.skips import SkippedUpdates, StepRecord

BAD = [torch.nan, torch.inf, -torch.inf]


def network() -> DdpTrainable:
    module = nn.Linear(3, 2)
    return DdpTrainable(module, module, torch.optim.Adam(module.parameters(), fused=True), 1.0)


def train_once(trainable: DdpTrainable, factor: float) -> Tensor:
    trainable.backward(factor * trainable(torch.ones(4, 3)).square().sum())
    return trainable.step(0.1)


@pytest.mark.parametrize("factor", BAD)
def test_update_when_the_loss_is_not_finite_changes_nothing(factor: float) -> None:
    trainable = network()
    assert train_once(trainable, 1.0) == 0
    weight, state = trainable.bare.weight.detach().clone(), copy.deepcopy(trainable.optimizer_state())
    assert train_once(trainable, factor) == 1
    assert torch.equal(trainable.bare.weight, weight)
    after = trainable.optimizer_state()
    assert all(torch.equal(after[slot][name], state[slot][name]) for slot in state for name in state[slot])
    assert trainable.bare.weight.grad is None
    assert train_once(trainable, 1.0) == 0
    assert not torch.equal(trainable.bare.weight, weight)


def test_update_when_only_a_gradient_is_not_finite_changes_nothing() -> None:
    trainable = network()
    loss = trainable(torch.ones(4, 3)).sum()
    loss.register_hook(lambda gradient: gradient * torch.inf)
    weight = trainable.bare.weight.detach().clone()
    assert loss.isfinite()
    trainable.backward(loss)
    assert trainable.step(0.1) == 1
    assert torch.equal(trainable.bare.weight, weight)


def test_loss_when_finite_keeps_its_gradient_to_the_bit_and_else_has_none() -> None:
    for target, wanted in ((2.0, -1.0), (torch.nan, None)):
        value = torch.tensor(0.3, requires_grad=True)
        # Of the distance to NaN alone, the gradient would be 0.
        poisoned((value - target).abs()).backward()
        assert value.grad is not None
        assert value.grad.isnan() if wanted is None else value.grad == wanted


def test_optimizer_that_cannot_skip_an_update_is_refused() -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="Adam was not built with fused=True"):
        DdpTrainable(module, module, torch.optim.Adam(module.parameters()), 0.0)


def test_means_exclude_values_that_are_not_finite() -> None:
    means = RunningMeans()
    for pixel, logit in ((1.0, torch.inf), (torch.nan, torch.nan), (3.0, -torch.inf)):
        means.add({"pixel": torch.tensor(pixel), "logit": torch.tensor(logit)})
    assert means.take(lambda values: values.double()) == {"pixel": 2.0}


def record(images_seen: int, *, generator: float, discriminator: float | None = None) -> StepRecord:
    flags = {"generator": generator, "discriminator": discriminator}
    skipped = {name: torch.tensor(flag) for name, flag in flags.items() if flag is not None}
    loss = {"generator/pixel": torch.tensor(torch.nan if generator else 0.5)}
    return StepRecord(images_seen, images_seen + 2, (f"a{images_seen}#0", f"b{images_seen}#1"), 1e-4, loss, skipped)


def test_skipped_updates_are_counted_by_network(tmp_path: Path) -> None:
    skipped = SkippedUpdates(limit=3)
    for number, flag in enumerate((1.0, 1.0, 0.0, 1.0)):
        skipped.add(record(number, generator=flag, discriminator=0.0 if number else None))
    assert skipped.counts() == {"generator": [3, 1], "discriminator": [0, 0]}
    resumed = SkippedUpdates(limit=3)
    resumed.load(json.loads(json.dumps(skipped.counts())), torch.device("cpu"))
    resumed.add(record(4, generator=1.0, discriminator=0.0))
    assert resumed.check(tmp_path / "folder", 0) == {"generator/skipped_updates": 4, "discriminator/skipped_updates": 0}
    assert not (tmp_path / "folder").exists()
    resumed.add(record(5, generator=1.0, discriminator=0.0))
    with pytest.raises(NonFiniteError, match="the generator's last 3 updates were skipped"):
        resumed.check(tmp_path / "folder", 0)


def test_run_of_skipped_updates_when_it_reaches_the_limit_leaves_what_is_known_of_each_step(tmp_path: Path) -> None:
    skipped = SkippedUpdates(limit=2)
    for images_seen in (0, 4, 8):
        skipped.add(record(images_seen, generator=1.0))
    with pytest.raises(NonFiniteError, match=r"rank-001\.json lists keys, positions, learning rates and losses"):
        skipped.check(tmp_path, 1)
    steps = json.loads((tmp_path / "rank-001.json").read_text())
    assert steps[0] == {
        "images_seen": 4,
        "positions": [6, 7],
        "keys": ["a4#0", "b4#1"],
        "learning_rate": 1e-4,
        "scalars": {"generator/pixel": "nan", "generator/skipped": 1.0},
    }
    assert [step["images_seen"] for step in steps] == [4, 8]


class SpoiledInputs(StepInputs):
    """Spoils the first image of the batches that hold one of the keys."""

    bad_keys: frozenset[str] = frozenset()
    seen: list[str]

    def __call__(self, batch: Batch, is_adversarial: bool) -> StepInput:
        step = super().__call__(batch, is_adversarial)
        SpoiledInputs.seen.append(batch.keys[0])
        if self.bad_keys.isdisjoint(batch.keys):
            return step
        lq = step.lq.clone()
        lq[0] = torch.nan
        return dataclasses.replace(step, lq=lq)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("skips"))


@pytest.fixture
def batch_keys(preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first key of each step of the run."""
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    monkeypatch.setattr(pipeline.run.session, "StepInputs", SpoiledInputs)
    monkeypatch.setattr(SpoiledInputs, "seen", [], raising=False)
    run_session(preset, tmp_path / "clean")
    return list(SpoiledInputs.seen)


def test_run_when_resumed_after_skipped_updates_ends_as_if_undisturbed(
    preset: Preset, batch_keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps of 4 images: one bad on pixels alone, two adversarial ones around the stop.
    monkeypatch.setattr(SpoiledInputs, "bad_keys", frozenset(batch_keys[number] for number in (1, 2, 3)))
    run_session(preset, tmp_path / "whole")
    assert not run_session(preset, tmp_path / "stopped", stop_at=12)[0].is_finished
    run_session(preset, tmp_path / "stopped")
    whole, stopped = lines_of(tmp_path / "whole"), lines_of(tmp_path / "stopped")
    assert whole == stopped
    assert whole != lines_of(tmp_path / "clean")
    reports = [line for line in whole if "learning_rate" in line]
    assert [line["generator/skipped_updates"] for line in reports] == [0, 1, 2, 3, 3, 3]
    assert [line.get("discriminator/skipped_updates") for line in reports] == [None, None, 1, 2, 2, 2]
    ours, theirs = (load_file(tmp_path / name / "export" / "generator.safetensors") for name in ("stopped", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(tensor.isfinite().all() for tensor in ours.values())


def test_run_when_every_update_is_skipped_stops_at_the_limit_with_its_last_good_weights(
    preset: Preset, batch_keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpoiledInputs, "bad_keys", frozenset(batch_keys[3:]))
    schedule = dataclasses.replace(preset.train.schedule, max_skipped_updates=2)
    with pytest.raises(NonFiniteError, match="the discriminator's last 2 and the generator's last 2 updates"):
        run_session(changed(preset, schedule=schedule), tmp_path / "stuck")
    steps = json.loads((tmp_path / "stuck" / "skipped_updates" / "rank-000.json").read_text())
    assert [(step["images_seen"], step["positions"]) for step in steps] == [(12, [12, 15]), (16, [16, 19])]
    assert [step["keys"][0] for step in steps] == batch_keys[3:5]
    assert steps[0]["scalars"]["generator/pixel"] == "nan"
    weights = load_file(tmp_path / "stuck" / "checkpoints" / "images-0000000016" / "generator.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())

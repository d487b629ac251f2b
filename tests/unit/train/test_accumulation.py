"""A rank's images in parts: the gradients, scalars and buffers of the whole batch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from sessions import lines_of, run_session
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import pipeline.run.session
from pipeline.losses import L1Loss, build_adversarial_loss
from pipeline.models import PatchDiscriminator, SRVGGNetCompact, UNetDiscriminator
from pipeline.run.dry_run import describe
from pipeline.runtime.trainable import DdpTrainable
from pipeline.tracking import NullTracker
from pipeline.train.phases import DiscriminatorPhase, GeneratorLosses, GeneratorPhase, StepInput, parts_of

CHANNELS = 64


def step_input(num_images: int) -> StepInput:
    gt = torch.rand(num_images, 3, 32, 32)
    return StepInput(torch.rand(num_images, 3, 8, 8), gt, gt * 0.9, torch.randn(num_images, CHANNELS, 2, 2))


def gradients(
    networks: list[nn.Module],
    step: StepInput,
    size: int,
    *,
    shares: bool = False,
    prepares: bool = True,
    loss_scale: float = 1.0,
) -> dict[str, Tensor]:
    """One step of plain gradient descent at learning rate 1 on copies: what moved is the gradient. And the scalars."""
    trained = [copy.deepcopy(network) for network in networks]
    scalers = [GradScaler("cpu", init_scale=loss_scale, enabled=loss_scale != 1.0) for _ in trained]
    wrapped = [
        DdpTrainable(net, net, torch.optim.SGD(net.parameters(), 1.0, fused=True), 0.0, scaler)
        for net, scaler in zip(trained, scalers, strict=True)
    ]
    loss = build_adversarial_loss("vanilla")
    judging = DiscriminatorPhase(wrapped[1], loss, contextlib.nullcontext, size)
    terms = GeneratorLosses(L1Loss(), 1.0, L1Loss(), 0.5, loss, 0.5)
    judge = judging if shares else None
    making = GeneratorPhase(wrapped[0], trained[1], terms, contextlib.nullcontext, judge, micro_batch_size=size)
    step = judging.begin(step) if prepares else step
    sr, found = making.run(step, 1.0, is_adversarial=True)
    found |= judging.run(step, sr, 1.0) | {"sr": sr}
    for number, (before, after) in enumerate(zip(networks, trained, strict=True)):
        moved = after.state_dict()
        for name, value in before.state_dict().items():
            is_buffer = name.endswith(("weight_u", "weight_v"))
            found[f"{number}.{name}"] = moved[name] if is_buffer else value - moved[name]
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("prepares", [False, True])
@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_gradients_when_taken_in_parts_are_those_of_the_whole(
    network: type[nn.Module], prepares: bool, shares: bool, size: int
) -> None:
    networks = [SRVGGNetCompact(8, 1, 4), network(8, CHANNELS)]
    step = step_input(4)
    whole = gradients(networks, step, 0, shares=shares, prepares=False)
    cut = gradients(networks, step, size, shares=shares, prepares=prepares)
    assert cut.keys() == whole.keys()
    for name, value in whole.items():
        # The same sums in another order; float32 rounds at 6e-8 of the largest term.
        torch.testing.assert_close(cut[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_gradients_when_taken_in_parts_of_a_scaled_loss_are_scaled_once() -> None:
    networks = [SRVGGNetCompact(8, 1, 4), PatchDiscriminator(8, CHANNELS)]
    step = step_input(4)
    plain, scaled = (gradients(networks, step, 2, loss_scale=scale) for scale in (1.0, 4096.0))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_parts_when_the_size_does_not_divide_end_with_a_smaller_one() -> None:
    step = step_input(5)
    parts = list(parts_of(step, 2, None))
    assert [(part.rows.start, part.rows.stop, part.share, part.is_last) for part in parts] == [
        (0, 2, 0.4, False),
        (2, 4, 0.4, False),
        (4, 5, 0.2, True),
    ]
    assert torch.equal(torch.cat([part.step.gt for part in parts]), step.gt)
    assert [len(part.step.semantics) for part in parts if part.step.semantics is not None] == [2, 2, 1]


@pytest.mark.parametrize("size", [0, 4, 9])
def test_parts_when_the_size_holds_all_are_the_step_itself(size: int) -> None:
    step = step_input(4)
    (part,) = parts_of(step, size, PatchDiscriminator(8, CHANNELS))
    assert part.step is step
    assert (part.share, part.is_last) == (1.0, True)


def test_run_when_cut_into_parts_reports_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.session, "open_tracker", lambda *_: NullTracker())
    preset = prepare_tiny_data(tmp_path)
    run_session(preset, tmp_path / "whole")
    cut = changed(preset, runtime=dataclasses.replace(preset.train.runtime, micro_batch_size=3))
    assert "4 = 1 process(es) x 4, HR crops of 48 px; 3 at a time" in describe(cut)
    run_session(cut, tmp_path / "cut")
    whole, parts = lines_of(tmp_path / "whole"), lines_of(tmp_path / "cut")
    assert len(whole) == len(parts)
    for line, expected in zip(parts, whole, strict=True):
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-4)

"""Micro-batches: the gradients, scalars and buffers of the whole batch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from gans import both, descending, losses, report
from harness import changed, prepare_tiny_data
from sessions import lines_of, run_session
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import pipeline.run.record
from pipeline.losses import ImageTerm, L1Loss
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.generators import SRVGGNetCompact
from pipeline.run.dry_run import describe
from pipeline.tracking import Trackers
from pipeline.train.gan_step import Adversary, Gan, GanStep, gan_step, gan_step_shared_pass
from pipeline.train.micro_batches import StepInput, micro_batches

CHANNELS = 64


def step_input(num_images: int) -> StepInput:
    gt = torch.rand(num_images, 3, 32, 32)
    return StepInput(torch.rand(num_images, 3, 8, 8), gt, gt * 0.9, torch.randn(num_images, CHANNELS, 2, 2))


def gradients(
    networks: list[nn.Module], batch: StepInput, size: int, *, step: GanStep = gan_step, loss_scale: float = 1.0
) -> dict[str, Tensor]:
    """Scalars and gradients: how far copies move in one step of gradient descent at learning rate 1."""
    trained = [copy.deepcopy(network) for network in networks]
    scalers = [GradScaler("cpu", init_scale=loss_scale, enabled=loss_scale != 1.0) for _ in trained]
    generator, discriminator = (descending(net, 0.0, scaler) for net, scaler in zip(trained, scalers, strict=True))
    terms = losses(1.0, ImageTerm("perceptual", 0.5, L1Loss()))
    gan = Gan(generator, (Adversary(discriminator),), terms, trained[0], contextlib.nullcontext, size)
    found = report(step(gan, batch, both(1.0)))
    for number, (before, after) in enumerate(zip(networks, trained, strict=True)):
        moved = after.state_dict()
        for name, value in before.state_dict().items():
            is_buffer = name.endswith(("weight_u", "weight_v"))
            found[f"{number}.{name}"] = moved[name] if is_buffer else value - moved[name]
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("step", [gan_step, gan_step_shared_pass])
@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_gradients_of_micro_batches_are_those_of_the_whole(network: type[nn.Module], step: GanStep, size: int) -> None:
    networks = [SRVGGNetCompact(8, 1, 4), network(8, CHANNELS)]
    batch = step_input(4)
    whole = gradients(networks, batch, 0, step=step)
    cut = gradients(networks, batch, size, step=step)
    assert cut.keys() == whole.keys()
    for name, value in whole.items():
        # The same sums in another order; float32 rounds at 6e-8 of the largest term.
        torch.testing.assert_close(cut[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_gradients_of_micro_batches_of_a_scaled_loss_are_scaled_once() -> None:
    networks = [SRVGGNetCompact(8, 1, 4), PatchDiscriminator(8, CHANNELS)]
    batch = step_input(4)
    plain, scaled = (gradients(networks, batch, 2, loss_scale=scale) for scale in (1.0, 4096.0))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_micro_batches_when_the_size_does_not_divide_end_with_a_smaller_one() -> None:
    batch = step_input(5)
    parts = list(micro_batches(batch, 2))
    assert [(len(part.lq), part.share, part.is_last) for part in parts] == [
        (2, 0.4, False),
        (2, 0.4, False),
        (1, 0.2, True),
    ]
    for name in ("lq", "gt", "target", "semantics"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


@pytest.mark.parametrize("size", [0, 4, 9])
def test_micro_batch_that_holds_all_is_the_batch(size: int) -> None:
    batch = step_input(4)
    (part,) = micro_batches(batch, size, PatchDiscriminator(8, CHANNELS))
    assert torch.equal(part.gt, batch.gt)
    assert (part.share, part.is_last) == (1.0, True)


def test_run_with_micro_batches_reports_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset = prepare_tiny_data(tmp_path)
    run_session(preset, tmp_path / "whole")
    cut = changed(preset, runtime=dataclasses.replace(preset.train.runtime, micro_batch_size=3))
    assert "4 = 1 process(es) x 4, HR crops of 48 px; 3 at a time" in describe(cut)
    run_session(cut, tmp_path / "cut")
    whole, parts = lines_of(tmp_path / "whole"), lines_of(tmp_path / "cut")
    assert len(whole) == len(parts)
    for line, expected in zip(parts, whole, strict=True):
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-4)

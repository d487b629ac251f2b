"""Operations are those of a real step, counted without memory; parameters are the discriminators'."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from harness import changed, runtime_config, tiny_preset
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.schema import Preset
from pipeline.inference.semantics import build_extractor
from pipeline.run.assembly import build_gan, build_losses, build_state, start_networks
from pipeline.run.cost import cost_of, discriminator_parameters
from pipeline.runtime.backend import Backend
from pipeline.train.gan_step import Turn
from pipeline.train.micro_batches import StepInput


@pytest.fixture
def tiny(tmp_path: Path) -> Preset:
    return tiny_preset(tmp_path, **{"schedule.pixel_only_images": 0, "losses.perceptual_weight": 1.0})


@pytest.mark.parametrize("r1_weight", [0.0, 0.1])
@pytest.mark.parametrize("semantic", [False, True])
def test_operations_are_those_of_a_real_step(tiny: Preset, semantic: bool, r1_weight: float) -> None:
    losses = dataclasses.replace(tiny.train.losses, r1_weight=r1_weight)
    discriminator = dataclasses.replace(tiny.train.discriminator, semantic=semantic)
    config = changed(tiny, discriminator=discriminator, losses=losses).train
    backend = Backend(runtime_config(), batch_size=4)
    extractor = build_extractor(config.semantics, 48) if semantic else None
    networks = start_networks(config, 0 if extractor is None else extractor.channels)
    state = build_state(config, networks, backend)
    gan, step = build_gan(config, state, build_losses(config), backend)
    gt, lq = torch.rand(4, 3, 48, 48), torch.rand(4, 3, 12, 12)
    with FlopCounterMode(display=False) as counter:
        semantics = None if extractor is None else extractor(gt)
        step(gan, StepInput(lq, gt, gt, semantics), Turn(1e-4, 1e-4))
    counted = cost_of(config)
    # torch does not count the CPU's fused attention, which the meta device has not.
    tolerance = 0.02 if semantic else 1e-6
    assert counted.flops == pytest.approx(counter.get_total_flops() * config.num_steps, rel=tolerance)
    assert counted.discriminator_parameters == discriminator_parameters(config)
    assert counted.generator_parameters == sum(one.numel() for one in networks.generator.parameters())


def test_pixel_stage_costs_its_own_operations_alone(tiny: Preset) -> None:
    schedule = dataclasses.replace(tiny.train.schedule, total_images=40)
    whole = cost_of(changed(tiny, schedule=schedule).train)
    half = cost_of(changed(tiny, schedule=dataclasses.replace(schedule, pixel_only_images=20)).train)
    none = cost_of(changed(tiny, schedule=dataclasses.replace(schedule, pixel_only_images=40)).train)
    assert half.flops == pytest.approx((whole.flops + none.flops) / 2)
    assert none.discriminator_parameters == 0

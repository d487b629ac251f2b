"""What a training step costs: floating-point operations, counted on networks that hold no memory.

The step itself is run, on the meta device, so that every term of a configuration is counted where it happens.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.schema import TrainConfig
from pipeline.losses import GradientPenalty
from pipeline.models.discriminators import DiscriminatorOptions, build_discriminator
from pipeline.models.semantics.extractor import build_backbone, build_frozen_maps
from pipeline.run.hollow import build_hollow, num_parameters
from pipeline.runtime.trainable import OptimizerState, Trainable
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step
from pipeline.train.micro_batches import StepInput

_IMAGES = 2


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        flops: Of all its steps.
        generator_parameters: Number that is trained.
        discriminator_parameters: Number that is trained, of all discriminators.
    """

    flops: float
    generator_parameters: int
    discriminator_parameters: int


class _Counted(Trainable):
    """A network whose passes are counted and whose updates are not: Adam's are few."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, network)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float | Tensor) -> Tensor:
        self.bare.zero_grad()
        return torch.zeros(())

    def optimizer_state(self) -> OptimizerState:
        return {}

    def load_optimizer_state(self, state: OptimizerState) -> None:
        pass

    def weights_changed(self) -> None:
        pass


def cost_of(config: TrainConfig) -> Cost:
    """Count the operations of a run: those of `gan_step`, and of the extractor where it runs in each step.

    Losses and frozen networks take part; degradation, optimizers and validation, which are small beside them, do not.

    Raises:
        ConfigError: The networks do not fit together.
    """
    schedule, batch = config.schedule, config.data.batch_size
    gan = hollow_gan(config)
    lq, gt = hollow_images(config, _IMAGES)
    with torch.device("meta"):
        with FlopCounterMode(display=False) as extracting:
            semantics = hollow_semantics(config, gt)
        adversarial = _count(gan, StepInput(lq, gt, gt, semantics), is_adversarial=True) if gan.adversaries else 0
        pixel_only = _count(gan, StepInput(lq, gt, gt, None), is_adversarial=False)
    if config.semantics.mode is None:
        adversarial += extracting.get_total_flops()
    num_images = config.num_steps * batch
    in_pixel_stage = min(schedule.pixel_only_images, num_images) if gan.adversaries else num_images
    total = (in_pixel_stage * pixel_only + (num_images - in_pixel_stage) * adversarial) / _IMAGES
    return Cost(total, num_parameters(gan.generator.bare), sum(num_parameters(one.bare) for one in gan.adversaries))


def discriminator_parameters(config: TrainConfig) -> int:
    """Return the number of trained parameters of a run's discriminators."""
    semantics, crop_px = config.semantics, config.data.crop_px
    channels = _num_channels(semantics.architecture, semantics.layer, crop_px) if config.uses_semantics else 0
    networks = config.discriminators.values() if config.is_adversarial else ()
    return sum(_num_parameters_of(options, channels, crop_px) for options in networks)


@functools.lru_cache(maxsize=256)
def _num_channels(architecture: str, layer: int | str, crop_px: int) -> int:
    return build_backbone(architecture, layer, crop_px).num_channels


@functools.lru_cache(maxsize=256)
def _num_parameters_of(options: DiscriminatorOptions, channels: int, crop_px: int) -> int:
    with torch.device("meta"):
        return num_parameters(build_discriminator(options, channels, crop_px))


def hollow_images(config: TrainConfig, num_images: int) -> tuple[Tensor, Tensor]:
    """Return LQ and ground truth of a batch on the meta device."""
    crop_px, scale = config.data.crop_px, config.generator.scale
    sides_px = (crop_px // scale, crop_px)
    lq, gt = (torch.empty(num_images, 3, side_px, side_px, device="meta") for side_px in sides_px)
    return lq, gt


@torch.no_grad()
def hollow_semantics(config: TrainConfig, gt: Tensor) -> Tensor | None:
    """Run the extractor of a run on ground truth of the meta device; None where the run has none."""
    if not config.uses_semantics:
        return None
    semantics = config.semantics
    with torch.device("meta"):
        extractor = build_frozen_maps(semantics.architecture, (semantics.layer,), crop_px=config.data.crop_px)
    return extractor.maps(gt)[-1]


def hollow_gan(config: TrainConfig) -> Gan:
    """Return networks and losses of a run on the meta device for `gan_step`; their updates do nothing."""
    hollow = build_hollow(config)
    adversaries = (
        Adversary(_Counted(network), name, config.discriminators[name].semantic)
        for name, network in hollow.discriminators.items()
    )
    return Gan(
        _Counted(hollow.generator),
        tuple(adversaries),
        hollow.losses,
        hollow.generator,
        contextlib.nullcontext,
        penalty=GradientPenalty(config.losses.r1_weight, config.losses.r2_weight, config.losses.penalty_sigma),
    )


def _count(gan: Gan, batch: StepInput, *, is_adversarial: bool) -> int:
    with FlopCounterMode(display=False) as counter:
        gan_step(gan, batch, Turn(1.0, 1.0 if is_adversarial else None))
    return counter.get_total_flops()

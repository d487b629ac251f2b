"""From a run's configuration to what its steps change: networks on the device, optimizers, phases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from pipeline.config.schema import LossConfig, RuntimeConfig, TrainConfig
from pipeline.errors import ConfigError
from pipeline.losses import CharbonnierLoss, L1Loss, LocallyDiscriminativeLoss, PerceptualLoss, build_adversarial_loss
from pipeline.models.discriminators import start_discriminator
from pipeline.models.generators import start_generator
from pipeline.runtime.backend import Backend
from pipeline.train.ema import MovingAverage
from pipeline.train.phases import DiscriminatorPhase, GeneratorLosses, GeneratorPhase
from pipeline.train.skips import SkippedUpdates
from pipeline.train.state import TrainingState


def memory_format_of(config: RuntimeConfig) -> torch.memory_format:
    """Return the layout of the convolutions' tensors."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def place(module: nn.Module, config: RuntimeConfig, device: torch.device) -> nn.Module:
    """Return the module on the device, in the run's layout."""
    return module.to(device).to(memory_format=memory_format_of(config))


def build_losses(config: LossConfig, *, is_adversarial: bool) -> GeneratorLosses:
    """Build the generator's losses; the perceptual network only for a run that uses it.

    Raises:
        InputError: The perceptual weights cannot be had.
    """
    needs_perceptual = is_adversarial and config.perceptual_weight > 0
    perceptual = (
        PerceptualLoss(weights=config.perceptual_weights, seed=config.perceptual_seed) if needs_perceptual else None
    )
    return GeneratorLosses(
        pixel={"l1": L1Loss, "charbonnier": CharbonnierLoss}[config.pixel](),
        pixel_weight=config.pixel_weight,
        perceptual=perceptual,
        perceptual_weight=config.perceptual_weight,
        adversarial=build_adversarial_loss(config.adversarial),
        adversarial_weight=config.adversarial_weight,
        ldl=LocallyDiscriminativeLoss() if config.ldl_weight else None,
        ldl_weight=config.ldl_weight,
    )


def build_state(config: TrainConfig, semantic_channels: int, backend: Backend) -> TrainingState:
    """Build the networks from the run's seed, with their optimizers. All ranks must call.

    Args:
        config: The run's configuration.
        semantic_channels: Of the semantics; 0 for a plain discriminator.
        backend: Ranks and devices.

    Raises:
        ConfigError: A network's options do not fit together, or to the crops.
        CheckpointError: A network's initial weights cannot be used.
    """
    torch.manual_seed(config.seed)
    schedule, device = config.schedule, backend.device
    generator = place(start_generator(config.generator, config.data.crop_px), config.runtime, device)
    discriminator = None
    if config.is_adversarial:
        network = start_discriminator(config.discriminator, semantic_channels, config.data.crop_px)
        discriminator = place(network, config.runtime, device)
    average = MovingAverage(generator)

    def trainable(module: nn.Module, learning_rate: float) -> Any:
        adam = torch.optim.Adam(module.parameters(), lr=learning_rate, betas=schedule.betas, fused=True)
        return backend.wrap(module, adam)

    state = TrainingState(
        trainable(generator, schedule.generator_learning_rate),
        trainable(discriminator, schedule.discriminator_learning_rate) if discriminator is not None else None,
        average,
        SkippedUpdates(schedule.max_skipped_updates),
    )
    if config.runtime.compile:
        # In place and after the copy: names of parameters stay as they are.
        for network in (generator, discriminator):
            if network is not None:
                network.compile()
    return state


def build_phases(
    config: TrainConfig,
    state: TrainingState,
    losses: GeneratorLosses,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[GeneratorPhase, DiscriminatorPhase | None]:
    """Return the phases of a step; no discriminator's in a run on pixels alone.

    Raises:
        ConfigError: A shared pass was asked for where there can be none.
    """
    size = config.runtime.micro_batch_size
    if state.discriminator is None:
        return GeneratorPhase(state.generator, None, losses, autocast, micro_batch_size=size), None
    judging = DiscriminatorPhase(state.discriminator, losses.adversarial, autocast, size)
    shares = config.runtime.discriminator_pass == "shared"
    if shares and not judging.can_judge_once:
        raise ConfigError(
            "runtime.discriminator_pass='shared' works neither under DeepSpeed nor with the relativistic loss; "
            "set --runtime.discriminator-pass separate"
        )
    making = GeneratorPhase(
        state.generator,
        state.discriminator.bare,
        losses,
        autocast,
        judging if shares else None,
        average=state.average.module,
        micro_batch_size=size,
    )
    return making, judging

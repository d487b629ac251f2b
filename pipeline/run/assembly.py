"""From a run's configuration to its networks on the device, optimizers and losses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.config.schema import RuntimeConfig, TrainConfig
from pipeline.losses import (
    ADVERSARIAL_LOSSES,
    IMAGE_LOSSES,
    PERCEPTUAL_LOSSES,
    GeneratorLosses,
    GradientPenalty,
    ImageTerm,
    adversarial_term,
)
from pipeline.models.discriminators import build_discriminator, start_discriminator
from pipeline.models.generators import build_generator, start_generator
from pipeline.runtime.backend import Backend
from pipeline.runtime.compilation import compile_network
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import Adversary, Gan, GanStep, gan_step, gan_step_shared_pass
from pipeline.train.graphed_step import GraphedStep
from pipeline.train.skips import SkippedUpdates
from pipeline.train.state import TrainingState
from pipeline.weights.initial import InitialWeights


def memory_format_of(config: RuntimeConfig) -> torch.memory_format:
    """Return the layout of the convolutions' tensors."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def place(module: nn.Module, config: RuntimeConfig, device: torch.device) -> nn.Module:
    """Return the module on the device, in the run's layout."""
    return module.to(device).to(memory_format=memory_format_of(config))


def build_losses(config: TrainConfig) -> GeneratorLosses:
    """Build the losses of a run; the perceptual network only where it is used.

    Raises:
        InputError: The perceptual weights are missing or do not fit.
    """
    losses, (_, *names) = config.losses, config.discriminators
    image = [IMAGE_LOSSES[losses.pixel].term(losses.pixel_weight, name="pixel", in_pixel_stage=True)]
    if config.uses_perceptual_network:
        network = PERCEPTUAL_LOSSES[losses.perceptual]
        perceptual = network.build(losses.perceptual_weights, losses.perceptual_seed)
        image.append(ImageTerm("perceptual", losses.perceptual_weight, perceptual))
    weights = {"ldl": losses.ldl_weight, **losses.extra}
    image += [IMAGE_LOSSES[name].term(weight) for name, weight in weights.items() if weight > 0]
    further = zip(names, config.further_discriminators, strict=True)
    return GeneratorLosses(
        tuple(image),
        ADVERSARIAL_LOSSES[losses.adversarial],
        losses.adversarial_weight,
        {adversarial_term(name): one.adversarial_weight for name, one in further},
    )


@dataclass(frozen=True)
class Networks:
    """The networks of a run before its first step, on the CPU.

    Attributes:
        generator: The network that is trained to upscale.
        discriminators: By name; none in a run without an adversarial stage.
        left_out: By network, what its initial weights and it do not have in common; see `InitialWeights`.
    """

    generator: nn.Module
    discriminators: Mapping[str, nn.Module]
    left_out: Mapping[str, Sequence[str]]


def start_networks(config: TrainConfig, semantic_channels: int, restored: Collection[str] = ()) -> Networks:
    """Build the networks from the run's seed, with their initial weights.

    Args:
        config: The run's configuration.
        semantic_channels: Of the semantics; 0 for plain discriminators.
        restored: Networks that a checkpoint will restore, and that need no initial weights therefore.

    Raises:
        ConfigError: A network's options do not fit together, or to the crops.
        CheckpointError: A network's initial weights cannot be used.
    """
    torch.manual_seed(config.seed)
    crop_px, weights = config.data.crop_px, dict[str, InitialWeights]()
    if "generator" in restored:
        generator = build_generator(config.generator, crop_px)
    else:
        generator, weights["generator"] = start_generator(config.generator, crop_px)
    discriminators = dict[str, nn.Module]()
    for name, options in config.discriminators.items() if config.is_adversarial else ():
        if name in restored:
            discriminators[name] = build_discriminator(options, semantic_channels, crop_px)
        else:
            discriminators[name], weights[name] = start_discriminator(options, semantic_channels, crop_px, name)
    left_out = {name: initial.left_out for name, initial in weights.items() if initial.left_out}
    return Networks(generator, discriminators, left_out)


def build_state(config: TrainConfig, networks: Networks, backend: Backend) -> TrainingState:
    """Place the networks on the device and build their optimizers. All ranks must call."""
    schedule, device = config.schedule, backend.device
    generator = place(networks.generator, config.runtime, device)
    discriminators = {name: place(network, config.runtime, device) for name, network in networks.discriminators.items()}
    average = MovingAverage(generator)

    def trainable(module: nn.Module, learning_rate: float) -> Any:
        adam = (torch.optim.AdamW if schedule.weight_decay else torch.optim.Adam)(
            module.parameters(),
            lr=learning_rate,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=True,
            capturable=config.runtime.cuda_graphs and device.type == "cuda",
        )
        return backend.wrap(module, adam)

    state = TrainingState(
        trainable(generator, schedule.generator_learning_rate),
        {name: trainable(network, schedule.discriminator_learning_rate) for name, network in discriminators.items()},
        average,
        SkippedUpdates(schedule.max_skipped_updates),
    )
    if config.runtime.compile:
        for network in (generator, *discriminators.values()):
            compile_network(network)
    return state


def build_gan(
    config: TrainConfig,
    state: TrainingState,
    losses: GeneratorLosses,
    backend: Backend,
) -> tuple[Gan, GanStep]:
    """Return the networks with their losses, and the function that runs a step with them.

    `check_settings` has checked that a shared pass and CUDA graphs can be, where they are asked for.
    """
    for term in losses.image:
        place(term.loss, config.runtime, backend.device)
    gan = Gan(
        state.generator,
        tuple(
            Adversary(trained, name, config.discriminators[name].semantic)
            for name, trained in state.discriminators.items()
        ),
        losses,
        state.average.module,
        backend.autocast,
        int(config.runtime.micro_batch_size),
        GradientPenalty(config.losses.r1_weight, config.losses.r2_weight, config.losses.penalty_sigma),
    )
    shares_pass = config.runtime.discriminator_pass == "shared" and gan.adversaries
    step = gan_step_shared_pass if shares_pass else gan_step
    return gan, GraphedStep(step) if config.runtime.cuda_graphs else step

"""A run on the meta device: the shapes of its networks and losses, without memory or weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.inference.semantics import describe_extractor
from pipeline.losses import GeneratorLosses
from pipeline.models.discriminators import Discriminator, build_discriminator
from pipeline.models.generators import Generator, build_generator
from pipeline.models.semantics.vision_model import Backbone
from pipeline.run.assembly import build_losses


@dataclass(frozen=True)
class HollowRun:
    """The networks and losses of a run on the meta device.

    Attributes:
        generator: The network that is trained to upscale.
        discriminators: By name; none in a run without an adversarial stage.
        backbone: Of the semantics; None in a run without them.
        losses: Of the generator.
    """

    generator: Generator
    discriminators: Mapping[str, Discriminator]
    backbone: Backbone | None
    losses: GeneratorLosses


def build_hollow(config: TrainConfig) -> HollowRun:
    """Build the networks and losses of a run on the meta device; no weights are fetched.

    Raises:
        ConfigError: A network's options do not fit together, or to the crops.
    """
    crop_px, losses = config.data.crop_px, _build_losses(config)
    with torch.device("meta"):
        backbone = describe_extractor(config.semantics, crop_px) if config.uses_semantics else None
        channels = 0 if backbone is None else backbone.num_channels
        options = config.discriminators if config.is_adversarial else {}
        discriminators = {name: build_discriminator(one, channels, crop_px) for name, one in options.items()}
        return HollowRun(build_generator(config.generator, crop_px), discriminators, backbone, losses)


def _build_losses(config: TrainConfig) -> GeneratorLosses:
    is_here = config.losses.perceptual_weights == "package"
    weights = config.losses.perceptual_weights if is_here else "random"
    losses = build_losses(
        dataclasses.replace(config, losses=dataclasses.replace(config.losses, perceptual_weights=weights))
    )
    for term in losses.image:
        term.loss.to("meta")
    return losses


def num_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())

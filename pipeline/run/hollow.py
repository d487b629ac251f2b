"""The networks and losses of a run on the meta device: their shapes, without memory or weights."""

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
class HollowNetworks:
    """The networks of a run on the meta device.

    Attributes:
        generator: The network that is trained to upscale.
        discriminators: By name; none in a run without an adversarial stage.
        backbone: Of the semantics; None in a run without them.
    """

    generator: Generator
    discriminators: Mapping[str, Discriminator]
    backbone: Backbone | None


def build_hollow(config: TrainConfig) -> HollowNetworks:
    """Build the networks of a run on the meta device.

    Raises:
        ConfigError: A network's options do not fit together, or to the crops.
    """
    crop_px = config.data.crop_px
    with torch.device("meta"):
        backbone = describe_extractor(config.semantics, crop_px) if config.uses_semantics else None
        channels = 0 if backbone is None else backbone.num_channels
        options = config.discriminators if config.is_adversarial else {}
        discriminators = {name: build_discriminator(one, channels, crop_px) for name, one in options.items()}
        return HollowNetworks(build_generator(config.generator, crop_px), discriminators, backbone)


def build_hollow_losses(config: TrainConfig) -> GeneratorLosses:
    """Build the losses of a run on the meta device; no weights are fetched."""
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

"""A whole training step, the SeD release's and ours, on the same weights and inputs."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torchvision
from _measure import build_reference_discriminator, import_reference
from torch import Tensor, nn

from pipeline.losses import GeneratorLosses, ImageTerm, L1Loss, PerceptualLoss, VanillaLoss
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator, load_discriminator_weights
from pipeline.models.generators import RRDBNet, load_generator_weights
from pipeline.runtime.compilation import compile_network
from pipeline.runtime.host_memory import keep_freed_memory
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import Adversary, Gan, GanStep, Turn, gan_step, gan_step_shared_pass
from pipeline.train.graphed_step import GraphedStep
from pipeline.train.micro_batches import StepInput

# The release's class, ours, and the perceptual weight of the release's options.
NETWORKS = {"P+SeD": ("SeD_P", PatchDiscriminator, 0.1), "U+SeD": ("SeD_U", UNetDiscriminator, 1.0)}
SCHEDULES: dict[str, GanStep] = {"separate": gan_step, "shared": gan_step_shared_pass}
LEARNING_RATE = 1e-4
ADVERSARIAL_WEIGHT = 0.01
Losses = dict[str, Any]
"""Terms by name: floats of the release, which waits for them, and tensors of ours."""
Step = Callable[..., Losses]


@dataclasses.dataclass(frozen=True)
class Batch:
    """What both sides get: LQ, HR, and the features of HR."""

    lq: Tensor
    hr: Tensor
    semantics: Tensor

    @classmethod
    def draw(cls, size: int, crop_px: int, seed: int = 1) -> Batch:
        """Draw a batch of noise; the time of a step does not depend on what is in it."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [(size, 3, crop_px // 4, crop_px // 4), (size, 3, crop_px, crop_px)]
        shapes.append((size, 1024, crop_px // 16, crop_px // 16))
        return cls(*(torch.rand(shape, generator=generator) for shape in shapes))

    def on(self, device: str, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
        """Return it on a device and in a layout."""
        tensors = (self.lq, self.hr, self.semantics)
        return Batch(*(tensor.to(device).contiguous(memory_format=memory_format) for tensor in tensors))


def reference_networks(name: str, options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Build the release's generator and discriminator with fixed seeds."""
    discriminator = build_reference_discriminator(NETWORKS[name][0], options.reference)
    from models import model_rrdb  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    return model_rrdb.RRDBNet(3, 3, nb=options.blocks).to(options.device), discriminator.to(options.device)


def reference_losses(perceptual_weight: float, options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Build the release's adversarial and perceptual losses, with our random VGG19 instead of a download."""
    import_reference(options.reference)
    from torchvision.models.vgg import cfgs, make_layers
    from utils import losses  # pyright: ignore[reportMissingImports]

    torchvision.models.vgg19 = lambda **_: SimpleNamespace(features=make_layers(cfgs["E"]))
    layers = {"2": 0.1, "7": 0.1, "16": 1.0, "25": 1.0, "34": 1.0}
    perceptual = losses.PerceptualLoss(layers, perceptual_weight=perceptual_weight, criterion="l1")
    perceptual.vgg.vgg_layers.load_state_dict(PerceptualLoss(weights="random").features.state_dict())
    return losses.GANLoss("vanilla", loss_weight=ADVERSARIAL_WEIGHT).to(options.device), perceptual.to(options.device)


def build_reference_step(name: str, options: argparse.Namespace) -> Step:
    """Return the release's step: its modules, in the order of its train.py."""
    generator, discriminator = reference_networks(name, options)
    adversarial, perceptual = reference_losses(NETWORKS[name][2], options)
    of_generator, of_discriminator = (
        torch.optim.Adam(network.parameters(), LEARNING_RATE, (0.9, 0.99)) for network in (generator, discriminator)
    )
    batch, pixel = Batch.draw(options.batch, options.crop_px).on(options.device), nn.L1Loss()

    def step() -> Losses:
        sr = generator(batch.lq)
        discriminator.requires_grad_(False)
        of_generator.zero_grad()
        terms = {"pixel": pixel(sr, batch.hr), "perceptual": perceptual(sr, batch.hr)}
        terms["adversarial"] = adversarial(discriminator(sr, batch.semantics), True, is_disc=False)
        seen = {key: term.item() for key, term in terms.items()}
        (terms["pixel"] + terms["perceptual"] + terms["adversarial"]).backward()
        of_generator.step()
        discriminator.requires_grad_(True)
        of_discriminator.zero_grad()
        for key, image, is_real in (("real", batch.hr, True), ("fake", sr.detach().clone(), False)):
            loss = adversarial(discriminator(image, batch.semantics), is_real, is_disc=True)
            seen[key] = loss.item()
            loss.backward()
        of_discriminator.step()
        return seen

    return step


def build_our_step(
    name: str, options: argparse.Namespace, *, wrap: Callable[[nn.Module], nn.Module] | None = None
) -> Step:
    """Return our step as the trainer runs it, which does not wait for its losses; `wrap` is for DDP.

    Args:
        name: Of NETWORKS.
        options: `reference` (a checkout whose weights to take, or None), `device`, `batch`, `crop_px`, `blocks`,
            `precision`, `compile`, `cuda_graphs`, and `schedule` of SCHEDULES.
        wrap: The generator's and the discriminator's wrapper.
    """
    if options.device == "cpu":
        keep_freed_memory()  # as the trainer's backend does
    _, network, perceptual_weight = NETWORKS[name]
    generator, discriminator = RRDBNet(num_blocks=options.blocks), network(64, semantic_channels=1024)
    if options.reference is not None:
        theirs = [network.state_dict() for network in reference_networks(name, options)]
        load_generator_weights(generator, theirs[0])
        load_discriminator_weights(discriminator, theirs[1])
    layout = torch.channels_last
    perceptual = PerceptualLoss(weights="random").to(options.device).to(memory_format=layout)
    trained = []
    for module in (generator, discriminator):
        module.to(options.device).to(memory_format=layout)
        optimizer = torch.optim.Adam(
            module.parameters(), LEARNING_RATE, (0.9, 0.99), fused=True, capturable=options.cuda_graphs
        )
        trained.append(DdpTrainable(wrap(module) if wrap else module, module, optimizer, 0.0))
    average = MovingAverage(generator)
    pixel = ImageTerm("pixel", 1.0, L1Loss(), in_pixel_stage=True)
    image = (pixel, ImageTerm("perceptual", perceptual_weight, perceptual))
    losses = GeneratorLosses(image, VanillaLoss(), ADVERSARIAL_WEIGHT)
    if options.compile:
        for module in (generator, discriminator):
            compile_network(module)
    autocast = functools.partial(torch.autocast, options.device, torch.bfloat16, enabled=options.precision == "bf16")
    gan = Gan(trained[0], (Adversary(trained[1]),), losses, average.module, autocast)
    batch = Batch.draw(options.batch, options.crop_px).on(options.device, layout)

    schedules = {name: GraphedStep(run) if options.cuda_graphs else run for name, run in SCHEDULES.items()}

    def step(schedule: str = options.schedule) -> Losses:
        inputs = StepInput(batch.lq, batch.hr, batch.hr, batch.semantics)
        result = schedules[schedule](gan, inputs, Turn(LEARNING_RATE, LEARNING_RATE))
        average.update(0.999)
        return {key.partition("/")[2]: value for key, value in result.scalars.items()}

    return step


def build_step(way: str, name: str, options: argparse.Namespace) -> Step:
    """Return a step of one way."""
    return build_reference_step(name, options) if way == "reference" else build_our_step(name, options)

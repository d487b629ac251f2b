"""Small GANs for tests of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from pipeline.losses import ADVERSARIAL_LOSSES, GeneratorLosses, GradientPenalty, ImageTerm, L1Loss
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.gan_step import NO_PENALTY, Adversary, Gan, StepResult, Turn


def losses(
    pixel_weight: float = 1.0, *image: ImageTerm, adversarial: str = "vanilla", adversarial_weight: float = 0.5
) -> GeneratorLosses:
    """L1 pixel loss, further image losses, and an adversarial loss."""
    pixel = ImageTerm("pixel", pixel_weight, L1Loss(), in_pixel_stage=True)
    return GeneratorLosses((pixel, *image), ADVERSARIAL_LOSSES[adversarial], adversarial_weight)


def descending(module: nn.Module, clip_norm: float = 0.0, scaler: GradScaler | None = None) -> DdpTrainable:
    """Plain gradient descent, whose updates show the gradients."""
    return DdpTrainable(module, module, torch.optim.SGD(module.parameters(), lr=123.0, fused=True), clip_norm, scaler)


def gan_of(
    generator: nn.Module,
    discriminator: nn.Module | None,
    terms: GeneratorLosses,
    *,
    average: nn.Module | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    micro_batch_size: int = 0,
    clip_norm: float = 0.0,
    penalty: GradientPenalty = NO_PENALTY,
) -> Gan:
    """Both networks under gradient descent."""
    adversaries = () if discriminator is None else (Adversary(descending(discriminator, clip_norm)),)
    averaged = average or generator
    return Gan(descending(generator, clip_norm), adversaries, terms, averaged, autocast, micro_batch_size, penalty)


def both(learning_rate: float) -> Turn:
    """A step that updates both networks."""
    return Turn(learning_rate, learning_rate)


def report(result: StepResult) -> dict[str, Tensor]:
    """Scalars and flags of a step under one roof."""
    return result.scalars | {f"{network}/skipped": flag for network, flag in result.skipped.items()}

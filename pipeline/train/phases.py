"""One GAN step as two phases, each owning its network (paper Sec. 3.2; reference `train.py`).

The generator goes first. It is judged by the bare, frozen discriminator: no gradient of its loss may reach the
discriminator's weights, and no wrapper may start a reduction. Then the discriminator judges the truth and the same,
detached, output in one call of its wrapper: one reduction a step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipeline.losses import AdversarialLoss
from pipeline.runtime.trainable import Trainable

Autocast = Callable[[], AbstractContextManager[Any]]
Scalars = dict[str, Tensor]


@dataclass(frozen=True)
class StepInput:
    """One step's tensors on the device.

    Attributes:
        lq: (n, 3, h, w) in [0, 1].
        gt: (n, 3, h * scale, w * scale) in [0, 1]: what the discriminator takes for real.
        target: What the pixel and perceptual losses compare with; `gt`, or its sharpened version (real-world).
        semantics: (n, c, grid, grid) of `gt`, or None for a plain discriminator or in the pixel stage.
    """

    lq: Tensor
    gt: Tensor
    target: Tensor
    semantics: Tensor | None


@dataclass(frozen=True)
class GeneratorLosses:
    """The terms of the generator's loss with their weights; a None term is left out."""

    pixel: nn.Module
    pixel_weight: float
    perceptual: nn.Module | None
    perceptual_weight: float
    adversarial: AdversarialLoss
    adversarial_weight: float


@dataclass(frozen=True)
class GeneratorPhase:
    """Update the generator on its losses."""

    generator: Trainable
    discriminator: nn.Module | None
    losses: GeneratorLosses
    autocast: Autocast

    def run(self, step: StepInput, learning_rate: float, *, is_adversarial: bool) -> tuple[Tensor, Scalars]:
        """Return the output, detached, and the loss terms, unweighted and detached."""
        with self.autocast():
            sr = self.generator(step.lq)
        sr_full = sr.float()
        scalars = {"pixel": self.losses.pixel(sr_full, step.target)}
        loss = self.losses.pixel_weight * scalars["pixel"]
        if is_adversarial:
            loss = loss + self._judged(sr, step, scalars)
        self.generator.backward(loss)
        self.generator.step(learning_rate)
        return sr.detach(), {f"generator/{name}": value.detach() for name, value in scalars.items()}

    def _judged(self, sr: Tensor, step: StepInput, scalars: Scalars) -> Tensor:
        losses = self.losses
        with self.autocast():
            if losses.perceptual is not None:
                scalars["perceptual"] = losses.perceptual(sr, step.target)
            scalars["adversarial"] = self._fools(sr, step)
        perceptual = losses.perceptual_weight * scalars["perceptual"] if losses.perceptual is not None else 0.0
        return perceptual + losses.adversarial_weight * scalars["adversarial"]

    def _fools(self, sr: Tensor, step: StepInput) -> Tensor:
        if self.discriminator is None:
            raise RuntimeError("the adversarial stage began without a discriminator")
        frozen = self.discriminator.requires_grad_(False)
        try:
            fake = frozen(sr, step.semantics)
            real = frozen(step.gt, step.semantics) if self.losses.adversarial.needs_real_logits else None
        finally:
            self.discriminator.requires_grad_(True)
        return self.losses.adversarial.generator(fake.float(), None if real is None else real.float())


@dataclass(frozen=True)
class DiscriminatorPhase:
    """Update the discriminator on the truth and the generator's output."""

    discriminator: Trainable
    loss: AdversarialLoss
    autocast: Autocast

    def run(self, step: StepInput, sr: Tensor, learning_rate: float) -> Scalars:
        """Return the losses on real and fake and the mean logits, detached."""
        with self.autocast():
            real, fake = self.discriminator((step.gt, sr.to(step.gt.dtype)), step.semantics)
        real_loss, fake_loss = self.loss.discriminator(real.float(), fake.float())
        self.discriminator.backward(real_loss + fake_loss)
        self.discriminator.step(learning_rate)
        scalars = {"real": real_loss, "fake": fake_loss, "real_logit": real.mean(), "fake_logit": fake.mean()}
        return {f"discriminator/{name}": value.detach().float() for name, value in scalars.items()}

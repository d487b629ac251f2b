"""One GAN step as two phases, each owning its network (paper Sec. 3.2; reference `train.py`).

The generator goes first. It is judged by the bare discriminator: no gradient of its loss may reach the discriminator's
weights, and no wrapper may start a reduction. Then the discriminator's own update; one reduction a step.

Between both, neither the output nor the discriminator's weights change, so one pass on the output can serve both
updates: the generator's gradient is taken from it, then the discriminator's, which waits in the weights' `grad` until
the truth has been judged too. This saves one of eight units of work a step (a backward pass is two) and never holds
two graphs of the discriminator at a time. Its spectral norms then iterate twice a step instead of thrice; nothing else
differs. Where it does not hold, a relativistic loss or a DeepSpeed engine, each phase judges for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.losses import AdversarialLoss
from pipeline.runtime.trainable import DdpTrainable, Trainable

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


@dataclass
class DiscriminatorPhase:
    """Update the discriminator on the truth and the generator's output."""

    discriminator: Trainable
    loss: AdversarialLoss
    autocast: Autocast
    _judged: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    """Loss and mean logit of the output, while its gradient waits for that of the truth."""

    @property
    def can_judge_once(self) -> bool:
        """Whether one pass on the output can serve both updates.

        The losses on truth and output must be apart, and gradients must be allowed to wait in `grad`: a DeepSpeed
        engine keeps them elsewhere.
        """
        return not self.loss.needs_real_logits and isinstance(self.discriminator, DdpTrainable)

    def judge_once(self, sr: Tensor, semantics: Tensor | None) -> tuple[Tensor, Tensor]:
        """Judge the output for both updates; `run` must follow, with the same output.

        Args:
            sr: (n, 3, h, w), the output; its graph is not touched.
            semantics: Those of the truth.

        Returns:
            The generator's loss, detached, and its gradient with respect to `sr`.
        """
        image = sr.detach().requires_grad_()
        with self.autocast():
            logits = self.discriminator.bare(image, semantics)
        fake = logits.float()
        generator_loss = self.loss.generator(fake)
        # A backward pass restricted to its inputs computes no gradient of any weight here, ...
        (gradient,) = torch.autograd.grad(generator_loss, image, retain_graph=True)
        # ... and none of the image there. DDP averages what waits in `grad` along with the next backward pass.
        _, fake_loss = self.loss.discriminator(fake.detach(), fake)
        torch.autograd.backward(fake_loss, inputs=list(self.discriminator.bare.parameters()))
        self._judged = fake_loss.detach(), fake.detach().mean()
        return generator_loss.detach(), gradient

    def run(self, step: StepInput, sr: Tensor, learning_rate: float) -> Scalars:
        """Return the losses on real and fake and the mean logits, detached."""
        if self._judged is None:
            scalars = self._judge_both(step, sr)
        else:
            scalars = self._judge_truth(step, *self._judged)
            self._judged = None
        self.discriminator.step(learning_rate)
        return {f"discriminator/{name}": value.detach().float() for name, value in scalars.items()}

    def _judge_both(self, step: StepInput, sr: Tensor) -> Scalars:
        with self.autocast():
            real, fake = self.discriminator((step.gt, sr.to(step.gt.dtype)), step.semantics)
        real_loss, fake_loss = self.loss.discriminator(real.float(), fake.float())
        self.discriminator.backward(real_loss + fake_loss)
        return {"real": real_loss, "fake": fake_loss, "real_logit": real.mean(), "fake_logit": fake.mean()}

    def _judge_truth(self, step: StepInput, fake_loss: Tensor, fake_logit: Tensor) -> Scalars:
        with self.autocast():
            real = self.discriminator(step.gt, step.semantics).float()
        real_loss, _ = self.loss.discriminator(real, real.detach())
        self.discriminator.backward(real_loss)
        return {"real": real_loss, "fake": fake_loss, "real_logit": real.mean(), "fake_logit": fake_logit}


@dataclass(frozen=True)
class GeneratorPhase:
    """Update the generator on its losses.

    Attributes:
        generator: What is trained.
        discriminator: The bare judge; None in a run on pixels alone.
        losses: The terms and their weights.
        autocast: The context that networks run in.
        judge: The discriminator's phase, which then must run next after each adversarial step, so that one pass on
            the output can serve both; None to judge apart.
    """

    generator: Trainable
    discriminator: nn.Module | None
    losses: GeneratorLosses
    autocast: Autocast
    judge: DiscriminatorPhase | None = None

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
        scalars["adversarial"], fools = self._fools(sr, step)
        perceptual = losses.perceptual_weight * scalars["perceptual"] if losses.perceptual is not None else 0.0
        return perceptual + losses.adversarial_weight * fools

    def _fools(self, sr: Tensor, step: StepInput) -> tuple[Tensor, Tensor]:
        """Return the loss, and a scalar with its gradient."""
        if self.judge is not None and self.judge.can_judge_once:
            loss, gradient = self.judge.judge_once(sr, step.semantics)
            return loss, (gradient.float() * sr.float()).sum()
        loss = self._fools_apart(sr, step)
        return loss, loss

    def _fools_apart(self, sr: Tensor, step: StepInput) -> Tensor:
        if self.discriminator is None:
            raise RuntimeError("the adversarial stage began without a discriminator")
        frozen = self.discriminator.requires_grad_(False)
        try:
            with self.autocast():
                fake = frozen(sr, step.semantics)
                real = frozen(step.gt, step.semantics) if self.losses.adversarial.needs_real_logits else None
        finally:
            self.discriminator.requires_grad_(True)
        return self.losses.adversarial.generator(fake.float(), None if real is None else real.float())

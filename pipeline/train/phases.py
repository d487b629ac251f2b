"""One GAN step as two phases, each owning its network (paper Sec. 3.2; reference `train.py`).

The generator goes first. It is judged by the bare discriminator: no gradient of its loss may reach the discriminator's
weights, and no wrapper may start a reduction. Then the discriminator's own update; one reduction a step.

Between both, neither the output nor the discriminator's weights change, so one pass on the output can serve both
updates: the generator's gradient is taken from it, then the discriminator's, which waits in the weights' `grad` until
the truth has been judged too. This saves one of eight units of work a step (a backward pass is two) and never holds
two graphs of the discriminator at a time. Its spectral norms then iterate twice a step instead of thrice; nothing else
differs. Where it does not hold, a relativistic loss or a DeepSpeed engine, each phase judges for itself.

Either way all passes share what the discriminator makes of the semantics and its weights alone (`StepSemantics`), but
under DeepSpeed, whose engines have a network run as a whole.

Each network's update is left out on all ranks when its own loss or gradient is not finite on any (`Trainable.step`);
the scalar `skipped` says so. Batch, schedule and moving average go on as after any other step.

A rank's images may pass in parts, to fit a large batch on a small device. Gradients add up over the parts as over the
batch, and ranks reduce them once, with the last; ZeRO stages 2 and 3, which keep no whole gradients, with each. Only a
relativistic loss, whose means are over the images of a pass, and stochastic depth make it another step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.losses import AdversarialLoss
from pipeline.runtime.trainable import Trainable, poisoned
from pipeline.train.step_semantics import Prepared, PreparesSemantics, StepSemantics

Autocast = Callable[[], AbstractContextManager[Any]]
Scalars = dict[str, Tensor]


@dataclass(frozen=True)
class StepInput:
    """One step's tensors on the device.

    Attributes:
        lq: (n, 3, h, w) in [0, 1].
        gt: (n, 3, h * scale, w * scale) in [0, 1]: what the discriminator takes for real.
        target: What the pixel and perceptual losses compare with; `gt`, or its sharpened version (real-world).
        semantics: (n, c, grid, grid) of `gt`, or what all passes share of it (`DiscriminatorPhase.begin`); None for a
            plain discriminator or in the pixel stage.
    """

    lq: Tensor
    gt: Tensor
    target: Tensor
    semantics: Tensor | StepSemantics | None

    def rows(self, first: int, last: int) -> StepInput:
        """Return the images from `first` to before `last`."""
        semantics = None if self.semantics is None else self.semantics[first:last]
        return StepInput(self.lq[first:last], self.gt[first:last], self.target[first:last], semantics)


@dataclass(frozen=True)
class Part:
    """Some of a step's images, which pass the networks together.

    Attributes:
        step: Their tensors.
        rows: Where they are in the whole.
        share: How much of the step they are.
        is_last: Whether the gradients are whole after them.
    """

    step: StepInput
    rows: slice
    share: float
    is_last: bool


def parts_of(step: StepInput, size: int, judge: nn.Module | None) -> Iterator[Part]:
    """Cut a rank's images into parts of `size`, in order; 0 for one part.

    The judge's buffers are set back before each part but the first: its spectral norms move with every pass, and every
    part must meet the discriminator that the whole batch would have met.
    """
    num_images = len(step.lq)
    size = size or num_images
    is_cut = size < num_images
    buffers = list(judge.buffers()) if judge is not None and is_cut else []
    start = [buffer.clone() for buffer in buffers]
    for first in range(0, num_images, size):
        rows = slice(first, min(first + size, num_images))
        for buffer, before in zip(buffers, start, strict=True) if first else ():
            buffer.copy_(before)
        part = step.rows(rows.start, rows.stop) if is_cut else step
        yield Part(part, rows, (rows.stop - rows.start) / num_images, is_last=rows.stop == num_images)


def _add(sums: Scalars, scalars: Scalars, share: float) -> None:
    for name, value in scalars.items():
        sums[name] = share * value.detach() + sums.get(name, 0.0)


@dataclass(frozen=True)
class GeneratorLosses:
    """The terms of the generator's loss with their weights; a None term is left out."""

    pixel: nn.Module
    pixel_weight: float
    perceptual: nn.Module | None
    perceptual_weight: float
    adversarial: AdversarialLoss
    adversarial_weight: float
    ldl: nn.Module | None = None
    ldl_weight: float = 0.0


@dataclass
class DiscriminatorPhase:
    """Update the discriminator on the truth and the generator's output.

    Attributes:
        discriminator: What is trained.
        loss: Its loss.
        autocast: The context that networks run in.
        micro_batch_size: Images that pass together, on each rank; 0 for all.
    """

    discriminator: Trainable
    loss: AdversarialLoss
    autocast: Autocast
    micro_batch_size: int = 0
    _waiting: Scalars = field(default_factory=dict, init=False, repr=False)
    """Loss and mean logit of the output, while its gradient waits for that of the truth."""

    @property
    def can_judge_once(self) -> bool:
        """Whether one pass on the output can serve both updates.

        The losses on truth and output must be apart, and gradients must be allowed to wait in `grad`: a DeepSpeed
        engine keeps them elsewhere.
        """
        return not self.loss.needs_real_logits and self.discriminator.lets_gradients_wait

    def begin(self, step: StepInput) -> StepInput:
        """Return the step with the semantics that all its passes share, if the discriminator can be run in parts."""
        if not isinstance(step.semantics, Tensor) or not self.discriminator.lets_gradients_wait:
            return step
        with self.autocast():
            prepared = cast(PreparesSemantics, self.discriminator.bare).prepare(step.semantics)
        return replace(step, semantics=StepSemantics(prepared))

    def judge_once(self, sr: Tensor, semantics: Tensor | StepSemantics | None, share: float) -> tuple[Tensor, Tensor]:
        """Judge a part of the output for both updates; `run` must follow, with the whole output.

        Args:
            sr: (n, 3, h, w), the output; its graph is not touched.
            semantics: Those of the truth.
            share: How much of the step the part is.

        Returns:
            The generator's loss, detached, and its gradient with respect to `sr`; neither times the share.
        """
        image = sr.detach().requires_grad_()
        shared = semantics if isinstance(semantics, StepSemantics) else None
        with self.autocast():
            logits = self.discriminator.bare(image, shared.waiting if shared else semantics)
        fake = logits.float()
        generator_loss = poisoned(self.loss.generator(fake))
        # A backward pass restricted to its inputs computes no gradient of any weight here, ...
        (gradient,) = torch.autograd.grad(generator_loss, image, retain_graph=True)
        # ... and none of the image there. DDP averages what waits in `grad` along with the next backward pass.
        _, fake_loss = self.loss.discriminator(fake.detach(), fake)
        waiting = [*self.discriminator.bare.parameters(), *(shared.copies if shared else ())]
        torch.autograd.backward(poisoned(share * fake_loss), inputs=waiting)
        _add(self._waiting, {"fake": fake_loss, "fake_logit": fake.mean()}, share)
        return generator_loss.detach(), gradient

    def run(self, step: StepInput, sr: Tensor, learning_rate: float) -> Scalars:
        """Return the losses on real and fake, the mean logits, and whether the update was skipped, detached."""
        judge = self._judge_truth if self._waiting else self._judge_both
        scalars: Scalars = {}
        for part in parts_of(step, self.micro_batch_size, self.discriminator.bare):
            with self.discriminator.accumulate(is_last=part.is_last):
                _add(scalars, judge(part, sr[part.rows]), part.share)
        scalars |= self._waiting | {"skipped": self.discriminator.step(learning_rate)}
        self._waiting = {}
        return {f"discriminator/{name}": value.float() for name, value in scalars.items()}

    def _judge_both(self, part: Part, sr: Tensor) -> Scalars:
        semantics, owed = _for_discriminator(part)
        with self.autocast():
            real, fake = self.discriminator((part.step.gt, sr.to(part.step.gt.dtype)), semantics)
        real_loss, fake_loss = self.loss.discriminator(real.float(), fake.float())
        self.discriminator.backward(part.share * (real_loss + fake_loss), owed)
        return {"real": real_loss, "fake": fake_loss, "real_logit": real.mean(), "fake_logit": fake.mean()}

    def _judge_truth(self, part: Part, sr: Tensor) -> Scalars:
        semantics, owed = _for_discriminator(part)
        with self.autocast():
            real = self.discriminator(part.step.gt, semantics).float()
        real_loss, _ = self.loss.discriminator(real, real.detach())
        self.discriminator.backward(part.share * real_loss, owed)
        return {"real": real_loss, "real_logit": real.mean()}


def _for_discriminator(part: Part) -> tuple[Tensor | Prepared | None, Tensor | float]:
    """Return the semantics for the discriminator's own pass on a part, and what its backward pass owes."""
    semantics = part.step.semantics
    if not isinstance(semantics, StepSemantics):
        return semantics, 0.0
    return (semantics.with_graph, semantics.owed()) if part.is_last else (semantics.waiting, 0.0)


def _for_generator(step: StepInput) -> Tensor | Prepared | None:
    return step.semantics.without_graph if isinstance(step.semantics, StepSemantics) else step.semantics


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
        average: The averaged generator, which LDL compares with; only read where the losses have that term.
        micro_batch_size: Images that pass together, on each rank; 0 for all.
    """

    generator: Trainable
    discriminator: nn.Module | None
    losses: GeneratorLosses
    autocast: Autocast
    judge: DiscriminatorPhase | None = None
    _: KW_ONLY
    average: nn.Module | None = None
    micro_batch_size: int = 0

    def __post_init__(self) -> None:
        """Refuse a wrapped judge: in this phase it would reduce gradients that nobody wants, or change its own."""
        if hasattr(self.discriminator, "module"):
            raise ValueError(
                f"the generator must be judged by the bare discriminator; got {type(self.discriminator).__name__}, "
                "which wraps it: give its Trainable.bare"
            )

    def run(self, step: StepInput, learning_rate: float, *, is_adversarial: bool) -> tuple[Tensor, Scalars]:
        """Return the output, and the loss terms, unweighted, with whether the update was skipped; all detached."""
        outputs: list[Tensor] = []
        scalars: Scalars = {}
        for part in parts_of(step, self.micro_batch_size, self.discriminator if is_adversarial else None):
            with self.generator.accumulate(is_last=part.is_last):
                sr, terms = self._learn(part, is_adversarial=is_adversarial)
            outputs.append(sr)
            _add(scalars, terms, part.share)
        scalars["skipped"] = self.generator.step(learning_rate)
        return _joined(outputs), {f"generator/{name}": value for name, value in scalars.items()}

    def rest(self, step: StepInput) -> Tensor:
        """Return the output for the discriminator to learn from, without learning anything."""
        with torch.no_grad(), self.autocast():
            return _joined([self.generator.bare(part.step.lq) for part in parts_of(step, self.micro_batch_size, None)])

    def _learn(self, part: Part, *, is_adversarial: bool) -> tuple[Tensor, Scalars]:
        step = part.step
        with self.autocast():
            sr = self.generator(step.lq)
        scalars = {"pixel": self.losses.pixel(sr.float(), step.target)}
        loss = self.losses.pixel_weight * scalars["pixel"]
        if is_adversarial:
            loss = loss + self._judged(sr, part, scalars)
        self.generator.backward(part.share * loss)
        return sr.detach(), scalars

    def _judged(self, sr: Tensor, part: Part, scalars: Scalars) -> Tensor:
        losses = self.losses
        # First, since a shared pass lets go of all that it kept before the perceptual network keeps its own.
        scalars["adversarial"], fools = self._fools(sr, part)
        with self.autocast():
            if losses.perceptual is not None:
                scalars["perceptual"] = losses.perceptual(sr, part.step.target)
        perceptual = losses.perceptual_weight * scalars["perceptual"] if losses.perceptual is not None else 0.0
        return perceptual + self._artefacts(sr, part.step, scalars) + losses.adversarial_weight * fools

    def _artefacts(self, sr: Tensor, step: StepInput, scalars: Scalars) -> Tensor | float:
        if self.losses.ldl is None:
            return 0.0
        if self.average is None:
            raise RuntimeError("LDL compares with the averaged generator, and the phase was built without one")
        with torch.no_grad(), self.autocast():
            average_sr = self.average(step.lq)
        scalars["ldl"] = self.losses.ldl(sr.float(), step.target, average_sr.float())
        return self.losses.ldl_weight * scalars["ldl"]

    def _fools(self, sr: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """Return the loss, and a scalar with its gradient."""
        if self.judge is not None and self.judge.can_judge_once:
            loss, gradient = self.judge.judge_once(sr, part.step.semantics, part.share)
            return loss, (gradient.float() * sr.float()).sum()
        loss = self._fools_apart(sr, part.step)
        return loss, loss

    def _fools_apart(self, sr: Tensor, step: StepInput) -> Tensor:
        if self.discriminator is None:
            raise RuntimeError("the adversarial stage began without a discriminator")
        frozen = self.discriminator.requires_grad_(False)
        try:
            with self.autocast():
                semantics = _for_generator(step)
                fake = frozen(sr, semantics)
                real = frozen(step.gt, semantics) if self.losses.adversarial.needs_real_logits else None
        finally:
            self.discriminator.requires_grad_(True)
        return self.losses.adversarial.generator(fake.float(), None if real is None else real.float())


def _joined(outputs: list[Tensor]) -> Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

"""One GAN step, top to bottom: the generator's update, then the discriminator's (paper Sec. 3.2, Eq. 7 and 8).

`gan_step` is the algorithm of the paper and of its released `train.py`. `gan_step_shared_pass` makes both updates with
one discriminator pass fewer. They have one signature, keep no state between calls and leave no gradient behind.

* The update of a network is skipped on all ranks when its own loss or gradient is not finite on any of them
  (`Trainable.step`). The other network's update, the schedules and the moving average continue.
* A run may have several discriminators: each has its adversarial term, and its update.
* Micro-batches add up to the gradients of the whole batch, and ranks reduce them once, with the last; ZeRO stages 2 and
  3, which hold no whole gradients, with each. Only a relativistic loss, whose means are over the images of a pass, and
  stochastic depth depend on how a batch is split.
* Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses import GeneratorLosses, GradientPenalty, adversarial_term
from pipeline.runtime.trainable import Trainable, poisoned
from pipeline.train.micro_batches import MicroBatch, StepInput, micro_batches

Scalars: TypeAlias = dict[str, Tensor]
TermNorms: TypeAlias = dict[str, Float[Tensor, " n"]]
Pair: TypeAlias = tuple[Tensor, Tensor]
"""Of real and of fake images."""
NO_PENALTY = GradientPenalty()


@dataclass(frozen=True)
class Adversary:
    """A discriminator as a step uses it.

    Attributes:
        trained: The network that tells real from fake.
        name: Of its terms in reports, `NAME/TERM`, and of its part of a checkpoint.
        is_semantic: Whether it is shown the semantics of a batch that has them.
    """

    trained: Trainable
    name: str = "discriminator"
    is_semantic: bool = True

    @property
    def term(self) -> str:
        """Name of its term in the generator's loss: `adversarial`, and `adversarial_2` of the second."""
        return adversarial_term(self.name)

    @property
    def bare(self) -> nn.Module:
        """The network itself.

        Raises:
            ValueError: It is still wrapped, and would reduce gradients in the generator's update.
        """
        # DistributedDataParallel and DeepSpeed's engine both keep the network under this name.
        if hasattr(self.trained.bare, "module"):
            raise ValueError(
                f"the generator's loss needs the bare discriminator; got {type(self.trained.bare).__name__}, which "
                "wraps it"
            )
        return self.trained.bare

    def semantics(self, part: StepInput) -> Tensor | None:
        """What it is shown beside the images."""
        return part.semantics if self.is_semantic else None


@dataclass(frozen=True)
class Gan:
    """The networks of a run and their losses.

    Attributes:
        generator: The network that upscales.
        adversaries: The discriminators; none in a run on pixels only.
        losses: The terms of the generator's loss, and the adversarial loss of both networks.
        average: Moving average of the generator, for losses that compare with it.
        autocast: The context that networks run in.
        micro_batch_size: Images per forward and backward pass on each rank; 0 for all of them.
        penalty: On the discriminators' gradients at images.
    """

    generator: Trainable
    adversaries: tuple[Adversary, ...]
    losses: GeneratorLosses
    average: nn.Module
    autocast: Callable[[], AbstractContextManager[Any]]
    micro_batch_size: int = 0
    penalty: GradientPenalty = NO_PENALTY

    def taking_part(self, turn: Turn) -> tuple[Adversary, ...]:
        """Return the discriminators of a step: none in the pixel stage.

        Raises:
            RuntimeError: The step is adversarial, and the run has none.
        """
        if turn.is_adversarial and not self.adversaries:
            raise RuntimeError("an adversarial step needs a discriminator, and this run has none")
        return self.adversaries if turn.is_adversarial else ()


@dataclass(frozen=True)
class Turn:
    """Which updates a step makes, and with which learning rates: numbers, or 0-dim tensors on the device.

    Attributes:
        generator_learning_rate: None where the generator is not updated: in the warm-up and between its turns.
        discriminator_learning_rate: Of all discriminators; None in the pixel stage, where they take no part.
        is_reported: Whether a report follows, for which the step also measures the gradient of each term.
        discriminator_rests: Whether the discriminators take part, but are measured only and not updated.
    """

    generator_learning_rate: float | Tensor | None
    discriminator_learning_rate: float | Tensor | None
    is_reported: bool = False
    discriminator_rests: bool = False

    @property
    def is_adversarial(self) -> bool:
        """Whether the discriminators take part."""
        return self.discriminator_learning_rate is not None


@dataclass
class StepResult:
    """What a step reports: 0-dim tensors of this rank, detached, on the device.

    Attributes:
        scalars: Unweighted loss terms, mean logits and accuracies over the rank's images, named `NETWORK/TERM`; in a
            step that is reported, the generator's `gradient/TERM` and `gradient_share/TERM` too.
        skipped: By network, 1 where its update was skipped, else 0; the same on all ranks.
    """

    scalars: Scalars = field(default_factory=dict)
    skipped: Scalars = field(default_factory=dict)

    def add(self, network: str, share: float, terms: Scalars) -> None:
        """Add the terms of a micro-batch with `share` of the rank's images."""
        for name, value in terms.items():
            key = f"{network}/{name}"
            self.scalars[key] = share * value.detach() + self.scalars.get(key, 0.0)

    def add_both_logits(self, network: str, share: float, losses: Pair, logits: Pair, accuracies: Pair) -> None:
        """Add what `add_logits` does for the real and for the fake images of a micro-batch."""
        for side, *values in zip(("real", "fake"), losses, logits, accuracies, strict=True):
            self.add_logits(network, share, side, *values)

    def add_logits(self, network: str, share: float, side: str, loss: Tensor, logits: Tensor, accuracy: Tensor) -> None:
        """Add a discriminator's loss, mean logit and accuracy on the real or the fake images of a micro-batch."""
        self.add(network, share, {side: loss, f"{side}_logit": logits.mean(), f"accuracy_{side}": accuracy})

    def add_gradients(self, share: float, norms: TermNorms) -> None:
        """Add each term's gradient norm and its share of all, means over the images of a micro-batch."""
        total = torch.stack(list(norms.values())).sum(dim=0)
        self.add("gradient", share, {name: norm.mean() for name, norm in norms.items()})
        self.add("gradient_share", share, {name: (norm / total).mean() for name, norm in norms.items()})


GanStep: TypeAlias = Callable[[Gan, StepInput, Turn], StepResult]


def gan_step(gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
    """Update the generator against the frozen discriminators, then these on HR images and outputs."""
    generator, losses, adversarial = gan.generator, gan.losses, gan.losses.adversarial
    adversaries, result, outputs = gan.taking_part(turn), StepResult(), list[Tensor]()

    # Generator: minimise image losses + weight * adversarial loss. A discriminator is called bare, so that no wrapper
    # reduces gradients, and frozen, so that its weights get none; the gradient passes through it to `sr`.
    if turn.generator_learning_rate is None:
        outputs = _outputs_without_graph(gan, batch)
    else:
        for part in micro_batches(batch, gan.micro_batch_size, *(adversary.bare for adversary in adversaries)):
            with generator.accumulate(is_last=part.is_last):
                with gan.autocast():
                    sr = generator(part.lq)
                terms: Scalars = {}
                for adversary in adversaries:
                    discriminator, semantics = adversary.bare, adversary.semantics(part)
                    with frozen(discriminator), gan.autocast():
                        fake = discriminator(sr, semantics).float()
                        real = discriminator(part.gt, semantics).float() if adversarial.needs_real_logits else None
                    terms[adversary.term] = adversarial.generator(fake, real)
                terms |= _image_terms(gan, sr, part, turn)
                if turn.is_reported and generator.can_measure_gradients:
                    result.add_gradients(part.share, term_gradients(generator, sr, losses.weighted(terms)))
                generator.backward(part.share * losses.weighted_sum(terms))
            outputs.append(sr.detach())
            result.add("generator", part.share, terms)
        result.skipped["generator"] = generator.step(turn.generator_learning_rate)

    if turn.discriminator_learning_rate is None:
        return result

    # Discriminators: HR images are real, outputs are fake. The outputs are detached: no gradient reaches the generator.
    # One pass on both, with the semantics of the HR image for both; its wrapper averages the gradients over ranks.
    for adversary in adversaries:
        if turn.discriminator_rests:
            _measure(adversary, gan, batch, outputs, result)
            continue
        trained, name = adversary.trained, adversary.name
        for part, sr in zip(micro_batches(batch, gan.micro_batch_size, trained.bare), outputs, strict=True):
            with trained.accumulate(is_last=part.is_last):
                images = (part.gt, sr.to(part.gt.dtype))
                with gan.autocast():
                    logits = trained((*images, *gan.penalty.noisy(images)), adversary.semantics(part))
                real, fake, *noisy = (of_images.float() for of_images in logits)
                real_loss, fake_loss = adversarial.discriminator(real, fake)
                penalties = gan.penalty((real, fake), noisy)
                trained.backward(part.share * sum(penalties.values(), real_loss + fake_loss))
            result.add(name, part.share, penalties)
            result.add_both_logits(
                name, part.share, (real_loss, fake_loss), (real, fake), adversarial.accuracy(real, fake)
            )
        result.skipped[name] = trained.step(turn.discriminator_learning_rate)
    return result


def gan_step_shared_pass(gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
    """Make the updates of `gan_step` with one discriminator pass on the output for both networks.

    Between the two updates neither the output nor the discriminator changes, so one pass serves both: it saves one of
    eight units of work per step (a backward pass counts as two), and holds one graph of the discriminator at a time.
    Its spectral norms iterate twice per step instead of three times; nothing else differs.

    Requires one discriminator, a loss that treats real and fake separately, no gradient penalty, and gradients of
    several backward passes that add up in `grad`, which those of a DeepSpeed engine do not. Steps with one update have
    nothing to share and go to `gan_step`.
    """
    if turn.generator_learning_rate is None or turn.discriminator_learning_rate is None or turn.discriminator_rests:
        return gan_step(gan, batch, turn)
    (adversary,) = gan.taking_part(turn)
    generator, trained, losses, adversarial = gan.generator, adversary.trained, gan.losses, gan.losses.adversarial
    discriminator, name, result = adversary.bare, adversary.name, StepResult()

    # Generator, and the discriminator's gradient on fakes, from one pass on a detached copy of the output.
    for part in micro_batches(batch, gan.micro_batch_size, discriminator):
        with generator.accumulate(is_last=part.is_last):
            with gan.autocast():
                sr = generator(part.lq)
            image = sr.detach().requires_grad_()
            with gan.autocast():
                fake = discriminator(image, adversary.semantics(part)).float()
            generator_loss = poisoned(adversarial.generator(fake))
            # Restricted to the image, this backward pass computes no gradient of a weight; the next none of the image.
            (image_gradient,) = torch.autograd.grad(generator_loss, image, retain_graph=True)
            _, fake_loss = adversarial.discriminator(fake.detach(), fake)
            torch.autograd.backward(poisoned(part.share * fake_loss), inputs=list(discriminator.parameters()))
            result.add_logits(name, part.share, "fake", fake_loss, fake, adversarial.accuracy(fake, fake)[1])
            # A scalar whose gradient is `image_gradient`, in place of the adversarial loss.
            terms = {adversary.term: (image_gradient.float() * sr.float()).sum()} | _image_terms(gan, sr, part, turn)
            if turn.is_reported and generator.can_measure_gradients:
                result.add_gradients(part.share, term_gradients(generator, sr, losses.weighted(terms)))
            generator.backward(part.share * losses.weighted_sum(terms))
        result.add("generator", part.share, terms | {adversary.term: generator_loss})
    result.skipped["generator"] = generator.step(turn.generator_learning_rate)

    # Discriminator on HR images. Its gradients on fakes are in `grad` already, and are averaged over ranks with these.
    for part in micro_batches(batch, gan.micro_batch_size, discriminator):
        with trained.accumulate(is_last=part.is_last):
            with gan.autocast():
                real = trained(part.gt, adversary.semantics(part)).float()
            real_loss, _ = adversarial.discriminator(real, real.detach())
            trained.backward(part.share * real_loss)
        result.add_logits(name, part.share, "real", real_loss, real, adversarial.accuracy(real, real)[0])
    result.skipped[name] = trained.step(turn.discriminator_learning_rate)
    return result


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Record no gradient for the network's weights in this block."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def term_gradients(generator: Trainable, sr: Float[Tensor, "n 3 h w"], terms: Scalars) -> TermNorms:
    """Return the norm of each weighted term's gradient at each of the generator's outputs.

    A term is a mean over images, so the gradient at an image is multiplied by their number: the norms depend neither on
    the batch size nor on how a batch is split. One more backward pass per term, down to the output only.
    """
    return {name: len(sr) * generator.gradient_at(sr, term).flatten(1).norm(dim=1) for name, term in terms.items()}


def _outputs_without_graph(gan: Gan, batch: StepInput) -> list[Tensor]:
    with torch.no_grad(), gan.autocast():
        return [gan.generator.bare(part.lq) for part in micro_batches(batch, gan.micro_batch_size)]


def _measure(adversary: Adversary, gan: Gan, batch: StepInput, outputs: list[Tensor], result: StepResult) -> None:
    """Add the losses, logits and accuracies of a discriminator that rests, by which it is found to lose again."""
    discriminator, adversarial = adversary.bare, gan.losses.adversarial
    for part, sr in zip(micro_batches(batch, gan.micro_batch_size, discriminator), outputs, strict=True):
        with torch.no_grad(), gan.autocast():
            real, fake = discriminator((part.gt, sr.to(part.gt.dtype)), adversary.semantics(part))
        logits = (real.float(), fake.float())
        losses, accuracies = adversarial.discriminator(*logits), adversarial.accuracy(*logits)
        result.add_both_logits(adversary.name, part.share, losses, logits, accuracies)


def _image_terms(gan: Gan, sr: Tensor, part: MicroBatch, turn: Turn) -> Scalars:
    """Return the losses between output and target: pixel, and after the pixel stage perceptual and others."""

    def averaged() -> Tensor:
        with torch.no_grad(), gan.autocast():
            return gan.average(part.lq).float()

    with gan.autocast():
        return gan.losses.image_terms(sr.float(), part.target, averaged, is_adversarial=turn.is_adversarial)

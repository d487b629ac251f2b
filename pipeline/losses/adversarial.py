"""Adversarial losses: both sides of each in one class. Logits have any shape: one per image, patch or pixel."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.losses.registry import ADVERSARIAL_LOSSES

Logits = Float[Tensor, "..."]


@runtime_checkable
class AdversarialLoss(Protocol):
    """Both sides of an adversarial loss."""

    name: str
    """The name that configurations use."""
    needs_real_logits: bool
    """Whether the generator's side needs the logits of real images too."""

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the generator's loss."""
        ...

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the discriminator's terms on real and on fake images, to be summed."""
        ...

    def accuracy(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the fractions of real and of fake logits on their own side of the decision boundary."""
        ...


class ApartLoss:
    """Base of losses that treat real and fake apart: one logit decides, by the side of `boundary` that it is on."""

    needs_real_logits = False
    boundary: ClassVar[float] = 0.0
    """Where real and fake are equally likely."""

    def accuracy(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the fractions of real logits above the boundary and of fake ones below it."""
        return _fraction(real_logits > self.boundary), _fraction(fake_logits < self.boundary)


def _fraction(correct: Bool[Tensor, "*logits"]) -> Float[Tensor, ""]:
    return correct.float().mean()


class VanillaLoss(ApartLoss):
    """Binary cross-entropy with logits; the generator's side does not saturate. The paper's choice.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, Sec. 3.
    """

    name = "vanilla"

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the mean of -log sigmoid(fake)."""
        return F.softplus(-fake_logits).mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the means of -log sigmoid(real) and -log(1 - sigmoid(fake))."""
        return F.softplus(-real_logits).mean(), F.softplus(fake_logits).mean()


class LeastSquaresLoss(ApartLoss):
    """Squared distance to 1 for real and 0 for fake.

    References:
        Mao et al. 2017, LSGAN, arXiv:1611.04076, Eq. 9, without its factor of one half, as BasicSR has it.
    """

    name = "least_squares"
    boundary = 0.5

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the mean of (fake - 1)^2."""
        return (fake_logits - 1).square().mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the means of (real - 1)^2 and fake^2."""
        return (real_logits - 1).square().mean(), fake_logits.square().mean()


class HingeLoss(ApartLoss):
    """Linear up to a margin of 1.

    References:
        Lim and Ye 2017, Geometric GAN, arXiv:1705.02894.
    """

    name = "hinge"

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the mean of -fake."""
        return -fake_logits.mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the means of max(0, 1 - real) and max(0, 1 + fake)."""
        return F.relu(1 - real_logits).mean(), F.relu(1 + fake_logits).mean()


class RelativisticAverageLoss:
    """The real image against the average fake, and the fake against the average real.

    The averages are over the images of a pass, so over a rank's own images in a distributed run. The two terms are
    summed, as in the paper's equations; BasicSR halves them.

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Wang et al. 2018, ESRGAN, arXiv:1809.00219, Eq. 1 and 2.
    """

    name = "relativistic_average"
    needs_real_logits = True

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the sum of both terms with the labels exchanged; the real logits get no gradient.

        Raises:
            ValueError: The real logits are missing.
        """
        if real_logits is None:
            raise ValueError("the relativistic average loss compares with real images; pass real_logits")
        real_logits = real_logits.detach()
        real_term = F.softplus(real_logits - fake_logits.mean()).mean()
        return real_term + F.softplus(real_logits.mean() - fake_logits).mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the terms on real against the fakes' mean, and on fake against the reals' mean."""
        real_term = F.softplus(fake_logits.mean() - real_logits).mean()
        return real_term, F.softplus(fake_logits - real_logits.mean()).mean()

    def accuracy(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the fractions of real logits above the fakes' mean and of fake ones below the reals' mean."""
        return _fraction(real_logits > fake_logits.mean()), _fraction(fake_logits < real_logits.mean())


class RelativisticPairwiseLoss:
    """Each real image against the fake of the same image: only their difference counts.

    In super-resolution the pair shows one scene, so that the discriminator compares like with like. It needs a gradient
    penalty to converge (`losses.r1_weight`, `losses.r2_weight`).

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734, Sec. 4.1 (RSGAN); Huang et al. 2024, R3GAN, arXiv:2501.05441, Eq. 2.
    """

    name = "relativistic_pairwise"
    needs_real_logits = True

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Float[Tensor, ""]:
        """Return the mean of -log sigmoid(fake - real); the real logits get no gradient.

        Raises:
            ValueError: The real logits are missing.
        """
        if real_logits is None:
            raise ValueError("the relativistic pairwise loss compares with real images; pass real_logits")
        return F.softplus(real_logits.detach() - fake_logits).mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the mean of -log sigmoid(real - fake) in two halves: a pair has one term."""
        half = F.softplus(fake_logits - real_logits).mean() / 2
        return half, half

    def accuracy(self, real_logits: Logits, fake_logits: Logits) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the fraction of pairs whose real logit is above the fake one, for both sides."""
        fraction = _fraction(real_logits > fake_logits)
        return fraction, fraction


for _loss in (VanillaLoss(), LeastSquaresLoss(), HingeLoss(), RelativisticAverageLoss(), RelativisticPairwiseLoss()):
    ADVERSARIAL_LOSSES.add(_loss)

"""Adversarial losses, both sides of each in one place.

Every class has `generator(fake_logits, real_logits=None)` and `discriminator(real_logits, fake_logits)`,
which gives the terms on real and on fake, to be summed. Logits are of any shape: one an image, a patch or a
pixel.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class AdversarialLoss(Protocol):
    """Both sides of an adversarial loss."""

    needs_real_logits: bool
    """Whether the generator's side looks at the logits of real images too."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the generator's loss, a scalar."""
        ...

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the discriminator's terms on real and on fake images, two scalars."""
        ...


class VanillaLoss:
    """Binary cross-entropy with logits; the generator's side does not saturate. The paper's choice.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, Sec. 3.
    """

    needs_real_logits = False

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the mean of -log sigmoid(fake)."""
        return F.softplus(-fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of -log sigmoid(real) and -log(1 - sigmoid(fake))."""
        return F.softplus(-real_logits).mean(), F.softplus(fake_logits).mean()


class LeastSquaresLoss:
    """Squared distance to 1 for real and 0 for fake.

    References:
        Mao et al. 2017, LSGAN, arXiv:1611.04076, Eq. 9, without its factor of one half, as BasicSR has it.
    """

    needs_real_logits = False

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the mean of (fake - 1)^2."""
        return (fake_logits - 1).square().mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of (real - 1)^2 and fake^2."""
        return (real_logits - 1).square().mean(), fake_logits.square().mean()


class HingeLoss:
    """Linear up to a margin of 1.

    References:
        Lim and Ye 2017, Geometric GAN, arXiv:1705.02894.
    """

    needs_real_logits = False

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the mean of -fake."""
        return -fake_logits.mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of max(0, 1 - real) and max(0, 1 + fake)."""
        return F.relu(1 - real_logits).mean(), F.relu(1 + fake_logits).mean()


class RelativisticAverageLoss:
    """Is the real image more real than the fakes are on average, and the reverse?

    The averages are over the batch at hand, so over a rank's own images in a distributed run. The two terms
    are summed as the paper's equations have it; BasicSR halves them.

    References:
        Jolicoeur-Martineau 2018, arXiv:1807.00734; Wang et al. 2018, ESRGAN, arXiv:1809.00219, Eq. 1 and 2.
    """

    needs_real_logits = True

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """Return the sum of both terms with the labels exchanged; the real logits get no gradient.

        Raises:
            ValueError: The real logits are missing.
        """
        if real_logits is None:
            raise ValueError("the relativistic average loss compares with real images; pass real_logits")
        real_logits = real_logits.detach()
        real_term = F.softplus(real_logits - fake_logits.mean()).mean()
        return real_term + F.softplus(real_logits.mean() - fake_logits).mean()

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms on real against the fakes' mean, and on fake against the reals' mean."""
        real_term = F.softplus(fake_logits.mean() - real_logits).mean()
        return real_term, F.softplus(fake_logits - real_logits.mean()).mean()


ADVERSARIAL_LOSSES = {
    "vanilla": VanillaLoss,
    "least_squares": LeastSquaresLoss,
    "hinge": HingeLoss,
    "relativistic_average": RelativisticAverageLoss,
}


def build_adversarial_loss(name: str) -> AdversarialLoss:
    """Build the loss called `name`.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in ADVERSARIAL_LOSSES:
        raise ValueError(f"no adversarial loss is called {name!r}; use one of {', '.join(ADVERSARIAL_LOSSES)}")
    return ADVERSARIAL_LOSSES[name]()

"""A penalty on the discriminator's gradient at images, without a second backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GradientPenalty:
    """Approximate R1 and R2: how much logits change when a little noise is added to real and to fake images.

    For small noise, the mean over the noise of (D(x + sigma n) - D(x))^2 / sigma^2 is the squared norm of D's gradient
    at x, which R1 (at real images) and R2 (at fake ones) penalise. That norm takes a second derivative, which DDP,
    DeepSpeed, torch.compile and fused attention do not have; this takes one more pass on noisy images. Logits of
    several patches or pixels are penalised each by itself.

    Attributes:
        r1_weight: Weight at real images; 0: none.
        r2_weight: Weight at fake images; 0: none.
        sigma: Standard deviation of the noise, on the scale of [0, 1] images.

    References:
        Lin et al. 2025, Diffusion adversarial post-training, arXiv:2501.08316, Sec. 3.3; R1, R2 and the factor of one
        half: Mescheder et al. 2018, arXiv:1801.04406, Eq. 9 and 10.
    """

    r1_weight: float = 0.0
    r2_weight: float = 0.0
    sigma: float = 0.01

    @property
    def weights(self) -> tuple[float, float]:
        """Weights at real and at fake images."""
        return self.r1_weight, self.r2_weight

    def noisy(self, images: Sequence[Float[Tensor, "n 3 h w"]]) -> list[Float[Tensor, "n 3 h w"]]:
        """Return the real and the fake images with noise, those of them that have a weight, in order."""
        chosen = [image for image, weight in zip(images, self.weights, strict=True) if weight > 0]
        return [image + self.sigma * torch.randn_like(image) for image in chosen]

    def __call__(
        self, logits: Sequence[Float[Tensor, "n ..."]], noisy_logits: Sequence[Float[Tensor, "n ..."]]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted terms, `r1` and `r2`, those that have a weight.

        Args:
            logits: Of the real and of the fake images.
            noisy_logits: Of what `noisy` returned.
        """
        chosen = [
            (name, weight, clean)
            for name, weight, clean in zip(("r1", "r2"), self.weights, logits, strict=True)
            if weight > 0
        ]
        return {
            name: weight / 2 * ((noisy - clean) / self.sigma).square().mean()
            for (name, weight, clean), noisy in zip(chosen, noisy_logits, strict=True)
        }

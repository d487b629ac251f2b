"""The generator's loss: a weighted sum of image losses and the adversarial loss (paper Eq. 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.adversarial import AdversarialLoss


def adversarial_term(discriminator: str) -> str:
    """Return the name of the generator's term against a discriminator: `adversarial` for `discriminator`."""
    return discriminator.replace("discriminator", "adversarial", 1)


@dataclass(frozen=True)
class ImageTerm:
    """A weighted loss between the generator's output and its target.

    Attributes:
        name: Its name in reports.
        weight: Its weight in the sum.
        loss: Called with output and target, and where `needs_average` with the averaged generator's output too.
        needs_average: Whether the loss compares with the averaged generator.
        in_pixel_stage: Whether the term is on from the first step, not only once the discriminator takes part.
    """

    name: str
    weight: float
    loss: nn.Module
    needs_average: bool = False
    in_pixel_stage: bool = False


@dataclass(frozen=True)
class ImageLoss:
    """A loss between the generator's output and its target, as configurations name it.

    Attributes:
        name: The name that configurations and reports use.
        build: Builds the module, called with `sr` and `target`, (n, 3, h, w) in [0, 1]; it returns a scalar.
        needs_average: Whether the module is also called with the averaged generator's output.
    """

    name: str
    build: Callable[[], nn.Module]
    needs_average: bool = False

    def term(self, weight: float, *, name: str = "", in_pixel_stage: bool = False) -> ImageTerm:
        """Return the loss as a weighted term, reported under `name` or its own name."""
        return ImageTerm(name or self.name, weight, self.build(), self.needs_average, in_pixel_stage)


@dataclass(frozen=True)
class GeneratorLosses:
    """The terms of the generator's loss.

    Attributes:
        image: Losses between output and target.
        adversarial: The adversarial loss, both sides.
        adversarial_weight: Weight of its generator's side.
        further_weights: The same of the further discriminators, by the names of their terms.
    """

    image: tuple[ImageTerm, ...]
    adversarial: AdversarialLoss
    adversarial_weight: float
    further_weights: Mapping[str, float] = field(default_factory=dict)

    def image_terms(
        self,
        sr: Float[Tensor, "n 3 h w"],
        target: Float[Tensor, "n 3 h w"],
        averaged: Callable[[], Float[Tensor, "n 3 h w"]],
        *,
        is_adversarial: bool,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted image losses of a step by name.

        Args:
            sr: The generator's output.
            target: What it is compared with.
            averaged: Computes the averaged generator's output, without a graph; called only if a loss needs it.
            is_adversarial: Whether the step is past the pixel stage.
        """
        terms: dict[str, Tensor] = {}
        for term in self.image:
            if term.in_pixel_stage or is_adversarial:
                terms[term.name] = term.loss(sr, target, *((averaged(),) if term.needs_average else ()))
        return terms

    def weighted_sum(self, terms: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Return the loss of which `terms` are the unweighted parts."""
        weighted = list(self.weighted(terms).values())
        return sum(weighted[1:], weighted[0])

    def weighted(self, terms: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
        """Return the summands of the loss of which `terms` are the unweighted parts."""
        weights = {term.name: term.weight for term in self.image} | {"adversarial": self.adversarial_weight}
        weights |= self.further_weights
        return {name: weights[name] * value for name, value in terms.items()}

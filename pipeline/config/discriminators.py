"""Discriminators beside the first of a run."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import positive, refuse
from pipeline.models.discriminators.options import DiscriminatorOptions


@dataclass(frozen=True)
class FurtherDiscriminator:
    """A discriminator beside the first; it shares its learning rate, its schedule and the kind of its loss."""

    adversarial_weight: float
    """Weight of the generator's adversarial loss against it; that of the first is losses.adversarial_weight."""
    network: DiscriminatorOptions

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(positive(adversarial_weight=self.adversarial_weight))

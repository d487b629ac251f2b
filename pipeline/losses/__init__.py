"""Losses: image losses between output and target, and adversarial losses.

A new one is a file in this room and a line in `IMAGE_LOSSES` or `ADVERSARIAL_LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pipeline.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    HingeLoss,
    LeastSquaresLoss,
    RelativisticAverageLoss,
    VanillaLoss,
)
from pipeline.losses.generator import GeneratorLosses, ImageTerm
from pipeline.losses.ldl import LocallyDiscriminativeLoss
from pipeline.losses.perceptual import PerceptualLoss
from pipeline.losses.pixel import CharbonnierLoss, L1Loss
from pipeline.registry import RegisteredName, Registry

__all__ = [
    "ADVERSARIAL_LOSSES",
    "IMAGE_LOSSES",
    "AdversarialLoss",
    "AdversarialLossName",
    "CharbonnierLoss",
    "GeneratorLosses",
    "HingeLoss",
    "ImageLoss",
    "ImageLossName",
    "ImageTerm",
    "L1Loss",
    "LeastSquaresLoss",
    "LocallyDiscriminativeLoss",
    "PerceptualLoss",
    "RelativisticAverageLoss",
    "VanillaLoss",
]


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


IMAGE_LOSSES: Registry[ImageLoss] = Registry(
    "image loss",
    [
        ImageLoss("l1", L1Loss),
        ImageLoss("charbonnier", CharbonnierLoss),
        ImageLoss("ldl", LocallyDiscriminativeLoss, needs_average=True),
    ],
)
"""Losses that need no options. The perceptual loss has options of its own."""


class ImageLossName(RegisteredName):
    """Name of an image loss."""

    __slots__ = ()
    registry = IMAGE_LOSSES


class AdversarialLossName(RegisteredName):
    """Name of an adversarial loss."""

    __slots__ = ()
    registry = ADVERSARIAL_LOSSES

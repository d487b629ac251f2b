"""Losses: image losses between output and target, and adversarial losses.

A new one is a file in this room, which adds itself, and a line in `registry`.
"""

from typing import TYPE_CHECKING

from pipeline.losses.registry import (
    ADVERSARIAL_LOSSES,
    IMAGE_LOSSES,
    PERCEPTUAL_LOSSES,
    AdversarialLossName,
    ImageLossName,
    PerceptualLossName,
)
from pipeline.registry import imported_on_first_use

if TYPE_CHECKING:
    from pipeline.losses.adversarial import VanillaLoss
    from pipeline.losses.efficientnet import EfficientNetPerceptualLoss
    from pipeline.losses.generator import GeneratorLosses, ImageLoss, ImageTerm, adversarial_term
    from pipeline.losses.ldl import LocallyDiscriminativeLoss
    from pipeline.losses.penalty import GradientPenalty
    from pipeline.losses.perceptual import PerceptualLoss
    from pipeline.losses.pixel import CharbonnierLoss, L1Loss

__getattr__ = imported_on_first_use(
    __name__,
    {
        "adversarial": ["VanillaLoss"],
        "efficientnet": ["EfficientNetPerceptualLoss"],
        "generator": ["GeneratorLosses", "ImageLoss", "ImageTerm", "adversarial_term"],
        "ldl": ["LocallyDiscriminativeLoss"],
        "penalty": ["GradientPenalty"],
        "perceptual": ["PerceptualLoss"],
        "pixel": ["CharbonnierLoss", "L1Loss"],
    },
)

__all__ = [
    "ADVERSARIAL_LOSSES",
    "IMAGE_LOSSES",
    "PERCEPTUAL_LOSSES",
    "AdversarialLossName",
    "CharbonnierLoss",
    "EfficientNetPerceptualLoss",
    "GeneratorLosses",
    "GradientPenalty",
    "ImageLoss",
    "ImageLossName",
    "ImageTerm",
    "L1Loss",
    "LocallyDiscriminativeLoss",
    "PerceptualLoss",
    "PerceptualLossName",
    "VanillaLoss",
    "adversarial_term",
]

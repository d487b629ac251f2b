"""Losses: pixel, perceptual, adversarial and LDL."""

from pipeline.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    HingeLoss,
    LeastSquaresLoss,
    RelativisticAverageLoss,
    VanillaLoss,
    build_adversarial_loss,
)
from pipeline.losses.ldl import LocallyDiscriminativeLoss
from pipeline.losses.perceptual import PerceptualLoss
from pipeline.losses.pixel import CharbonnierLoss, L1Loss

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "CharbonnierLoss",
    "HingeLoss",
    "L1Loss",
    "LeastSquaresLoss",
    "LocallyDiscriminativeLoss",
    "PerceptualLoss",
    "RelativisticAverageLoss",
    "VanillaLoss",
    "build_adversarial_loss",
]

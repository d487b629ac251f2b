"""Losses by the names that configurations use. Nothing here imports torch.

What registers here imports this module, so that the types of the entries would be a cycle: they are said in words.
"""

from __future__ import annotations

from typing import Any

from pipeline.registry import RegisteredName, Registry

IMAGE_LOSSES: Registry[Any] = Registry(
    "image loss",
    modules={
        "l1": "pipeline.losses.pixel",
        "charbonnier": "pipeline.losses.pixel",
        "ldl": "pipeline.losses.ldl",
        "frequency": "pipeline.losses.frequency",
        "ms_ssim": "pipeline.losses.ms_ssim",
    },
)
"""Each an `ImageLoss`, without options; perceptual losses take weights."""

PERCEPTUAL_LOSSES: Registry[Any] = Registry(
    "perceptual loss",
    modules={"vgg19": "pipeline.losses.perceptual", "efficientnet-lite0": "pipeline.losses.efficientnet"},
)
"""Each a `PerceptualNetwork`."""

ADVERSARIAL_LOSSES: Registry[Any] = Registry(
    "adversarial loss",
    modules=dict.fromkeys(
        ("vanilla", "least_squares", "hinge", "relativistic_average", "relativistic_pairwise"),
        "pipeline.losses.adversarial",
    ),
)
"""Each an `AdversarialLoss`, by the name that `losses.adversarial` gives."""


class ImageLossName(RegisteredName):
    """Name of an image loss."""

    __slots__ = ()
    registry = IMAGE_LOSSES


class PerceptualLossName(RegisteredName):
    """Name of a perceptual loss."""

    __slots__ = ()
    registry = PERCEPTUAL_LOSSES


class AdversarialLossName(RegisteredName):
    """Name of an adversarial loss."""

    __slots__ = ()
    registry = ADVERSARIAL_LOSSES

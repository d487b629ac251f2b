"""Losses by the names that configurations use. Nothing here imports torch."""

from __future__ import annotations

from typing import Any

from pipeline.registry import RegisteredName, Registry

IMAGE_LOSSES: Registry[Any] = Registry(
    "image loss",
    modules={
        "l1": "pipeline.losses.pixel",
        "charbonnier": "pipeline.losses.pixel",
        "ldl": "pipeline.losses.ldl",
    },
)
"""Each an `ImageLoss`, without options; the perceptual loss has options of its own."""

ADVERSARIAL_LOSSES: Registry[Any] = Registry(
    "adversarial loss",
    modules=dict.fromkeys(("vanilla", "least_squares", "hinge", "relativistic_average"), "pipeline.losses.adversarial"),
)
"""Each an `AdversarialLoss`, by the name that `losses.adversarial` gives."""


class ImageLossName(RegisteredName):
    """Name of an image loss."""

    __slots__ = ()
    registry = IMAGE_LOSSES


class AdversarialLossName(RegisteredName):
    """Name of an adversarial loss."""

    __slots__ = ()
    registry = ADVERSARIAL_LOSSES

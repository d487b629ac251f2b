"""Pixel losses: the mean over all elements of a distance between two batches of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.generator import ImageLoss
from pipeline.losses.registry import IMAGE_LOSSES


def check_pair(sr: Tensor, gt: Tensor) -> None:
    """Refuse a pair that torch would silently broadcast.

    Raises:
        ValueError: The shapes differ.
    """
    if sr.shape != gt.shape:
        raise ValueError(f"sr and gt must have one shape; got {tuple(sr.shape)} and {tuple(gt.shape)}")


class L1Loss(nn.Module):
    """Mean absolute difference."""

    def forward(self, sr: Float[Tensor, "n c h w"], gt: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Compare two batches of images.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(sr, gt)
        return F.l1_loss(sr, gt)


class CharbonnierLoss(nn.Module):
    """Mean of sqrt(d^2 + epsilon^2): L1 with a smooth minimum.

    Args:
        epsilon: Width of the smooth part, on the scale of [0, 1] images.

    References:
        Lai et al. 2017, LapSRN, arXiv:1704.03915, Sec. 3.3.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, sr: Float[Tensor, "n c h w"], gt: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Compare two batches of images.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(sr, gt)
        return torch.sqrt((sr - gt).square() + self.epsilon**2).mean()


IMAGE_LOSSES.add(ImageLoss("l1", L1Loss))
IMAGE_LOSSES.add(ImageLoss("charbonnier", CharbonnierLoss))

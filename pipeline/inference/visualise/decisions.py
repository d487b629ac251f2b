"""What a discriminator decides, place by place: its logits on a picture, crop by crop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from pipeline.inference.upscale import to_tensor
from pipeline.inference.visualise.photos import lay_windows
from pipeline.losses import ADVERSARIAL_LOSSES
from pipeline.models.discriminators import Discriminator

Look: TypeAlias = Callable[[Tensor], Tensor | None]
"""From crops of HR to their semantics; to None for a plain discriminator."""


@dataclass(frozen=True)
class DecisionMap:
    """The logits on one picture.

    Attributes:
        logits: At their places.
        top_px: Where the first one's square begins.
        left_px: Likewise.
        cell_px: Side of a logit's square.
    """

    logits: Float[ndarray, "rows columns"]
    top_px: int
    left_px: int
    cell_px: int

    @property
    def sigmoid(self) -> Float[ndarray, "rows columns"]:
        """Under the vanilla loss the probabilities that the places are real."""
        return 1 / (1 + np.exp(-self.logits))

    @property
    def extent_px(self) -> tuple[float, float, float, float]:
        """Left, right, lower and upper border in the picture, as matplotlib's `imshow` takes them."""
        rows, columns = self.logits.shape
        right, bottom = self.left_px + columns * self.cell_px, self.top_px + rows * self.cell_px
        return self.left_px - 0.5, right - 0.5, bottom - 0.5, self.top_px - 0.5


def decide(
    discriminator: Discriminator,
    look: Look,
    gt: UInt8[ndarray, "h w 3"],
    picture: UInt8[ndarray, "h w 3"],
    crop_px: int,
) -> DecisionMap:
    """Run a discriminator on a picture in crops of the size of its training, laid so that their logits adjoin.

    Args:
        discriminator: In evaluation mode.
        look: Gives the semantics.
        gt: The HR image, whose semantics both kinds of pictures are discriminated with, as in training.
        picture: That image itself, or its SR.
        crop_px: Side of a crop.
    """
    stride_px, margin_px = discriminator.logit_stride_px, discriminator.logit_margin_px
    device = next(discriminator.parameters()).device
    windows = lay_windows(gt, crop_px, crop_px - 2 * margin_px)
    rows = []
    for row in windows:
        crops = ((to_tensor(window.cut(gt), device), to_tensor(window.cut(picture), device)) for window in row)
        rows.append(np.concatenate([place_logits(discriminator, crop, look(hr)) for hr, crop in crops], axis=1))
    first = windows[0][0]
    return DecisionMap(np.concatenate(rows), first.top_px + margin_px, first.left_px + margin_px, stride_px or crop_px)


def numbers_of(hr: DecisionMap, sr: DecisionMap, loss: str) -> dict[str, dict[str, float]]:
    """Return the mean logit, its mean sigmoid and the accuracy (fraction of right logits) on a photo's HR and SR.

    On photos that the run did not train on, the accuracy is the one that `metrics.jsonl` cannot have.

    Args:
        hr: The logits on HR.
        sr: Those on SR.
        loss: Name of the adversarial loss, which says what is right.
    """
    accuracies = ADVERSARIAL_LOSSES[loss].accuracy(torch.from_numpy(hr.logits), torch.from_numpy(sr.logits))
    return {
        side: {
            "mean_logit": float(decisions.logits.mean()),
            "mean_sigmoid": float(decisions.sigmoid.mean()),
            "accuracy": float(accuracy),
        }
        for side, decisions, accuracy in zip(("hr", "sr"), (hr, sr), accuracies, strict=True)
    }


def ordered_share(hr: DecisionMap, sr: DecisionMap) -> float:
    """Return the share of places where HR's logit is above SR's.

    Unlike the accuracy it is blind to what both have in common, a preference for the photo's texture, of which the
    generator's gradient has nothing either. 0.5: chance; equal logits count by half.
    """
    return float((1 + np.sign(hr.logits - sr.logits).mean()) / 2)


@torch.no_grad()
def place_logits(
    discriminator: Discriminator, crop: Float[Tensor, "1 3 side side"], semantics: Tensor | None
) -> Float[ndarray, "rows columns"]:
    """Return the logits of a crop on their grid: the mean over channels, and one number where they have no place."""
    logits = discriminator(crop, semantics).float().cpu()
    placed = logits.mean(dim=1)[0] if discriminator.logit_stride_px else logits.mean()[None, None]
    return placed.numpy()

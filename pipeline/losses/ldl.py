"""LDL, locally discriminative learning: a pixel loss on artefacts alone, which the paper compares with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.generator import ImageLoss
from pipeline.losses.pixel import check_pair
from pipeline.losses.registry import IMAGE_LOSSES


class LocallyDiscriminativeLoss(nn.Module):
    """L1 weighted by the local variance of the residual, where the averaged generator does better.

    With R the sum over channels of |gt - sr|, the weight is the unbiased variance of R in a window around the
    pixel, times the fifth root of R's variance over the image, and zero where R is smaller than that of the
    averaged generator. As in the public implementations, gradient flows through it, and the L1 loss is the mean
    over all elements of the weighted images.

    Args:
        window_px: Side of the window of the local variance; odd.

    Raises:
        ValueError: `window_px` is even or below 3.

    References:
        Liang et al. 2022, LDL, arXiv:2203.09195, Sec. 3.2 and 3.3; window 7, loss weight 1, average with decay 0.999
        per step as in public trainers (the authors' own code was not available).
    """

    def __init__(self, window_px: int = 7) -> None:
        super().__init__()
        if window_px < 3 or window_px % 2 == 0:
            raise ValueError(f"window_px must be odd and at least 3; got {window_px}")
        self.window_px = window_px

    def forward(
        self,
        sr: Float[Tensor, "n c h w"],
        gt: Float[Tensor, "n c h w"],
        ema_sr: Float[Tensor, "n c h w"],
    ) -> Float[Tensor, ""]:
        """Compare `sr` with `gt`, where the averaged generator's output `ema_sr` is closer to it.

        Raises:
            ValueError: The shapes differ, or the images are smaller than half a window.
        """
        check_pair(sr, gt)
        if min(gt.shape[-2:]) <= self.window_px // 2:
            raise ValueError(
                f"LDL with a window of {self.window_px} px needs sides above {self.window_px // 2} px; got "
                f"{gt.shape[-2]}x{gt.shape[-1]}; use larger crops"
            )
        check_pair(ema_sr, gt)
        weight = self.artefact_map(sr, gt, ema_sr)
        return F.l1_loss(weight * sr, weight * gt)

    def artefact_map(
        self,
        sr: Float[Tensor, "n c h w"],
        gt: Float[Tensor, "n c h w"],
        ema_sr: Float[Tensor, "n c h w"],
    ) -> Float[Tensor, "n 1 h w"]:
        """Return the weights, each at least 0."""
        residual = (gt - sr).abs().sum(dim=1, keepdim=True)
        ema_residual = (gt - ema_sr.detach()).abs().sum(dim=1, keepdim=True)
        # The root of a constant residual's variance, 0, has an infinite slope, which would make the gradient NaN.
        variance = residual.var(dim=(1, 2, 3), keepdim=True)
        whole = variance.clamp_min(torch.finfo(variance.dtype).tiny) ** 0.2
        return torch.where(residual < ema_residual, 0.0, whole * self._local_variance(residual))

    def _local_variance(self, residual: Tensor) -> Tensor:
        half = self.window_px // 2
        padded = F.pad(residual, [half] * 4, mode="reflect")
        windows = padded.unfold(2, self.window_px, 1).unfold(3, self.window_px, 1)
        return windows.var(dim=(-2, -1))


IMAGE_LOSSES.add(ImageLoss("ldl", LocallyDiscriminativeLoss, needs_average=True))

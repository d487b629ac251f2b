"""Frequency loss: distance of two images' discrete Fourier transforms, for detail that a pixel loss averages away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.generator import ImageLoss
from pipeline.losses.pixel import check_pair
from pipeline.losses.registry import IMAGE_LOSSES


class FrequencyLoss(nn.Module):
    """Mean absolute difference of the real and imaginary parts of the orthonormal 2-D transforms, in float32.

    Orthonormal, so that its size does not depend on the crop's: white noise has the same loss here as in L1.

    References:
        Cho et al. 2021, MIMO-UNet, arXiv:2108.05054, Eq. 8.
    """

    def forward(self, sr: Float[Tensor, "n c h w"], gt: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Compare two batches of images.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(sr, gt)
        difference = torch.view_as_real(torch.fft.fft2(sr.float() - gt.float(), norm="ortho"))
        return F.l1_loss(difference, torch.zeros_like(difference))


IMAGE_LOSSES.add(ImageLoss("frequency", FrequencyLoss))

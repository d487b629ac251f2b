"""MS-SSIM as a loss: structure at several scales, blind to small shifts of brightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.generator import ImageLoss
from pipeline.losses.pixel import check_pair
from pipeline.losses.registry import IMAGE_LOSSES

# Exponents from the finest scale to the coarsest (Sec. 3.2 of the paper).
_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX, _SIGMA_PX = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


class MsSsimLoss(nn.Module):
    """One minus MS-SSIM of RGB images in [0, 1], each channel by itself, without padding.

    Five scales need crops of 176 px. A smaller crop has as many as fit, with exponents that add up to one.

    References:
        Wang et al. 2003, Multiscale structural similarity for image quality assessment; as a loss: Zhao et al. 2016,
        arXiv:1511.08861.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        offsets_px = torch.arange(_WINDOW_PX) - _WINDOW_PX // 2
        window = torch.exp(-offsets_px.square() / (2 * _SIGMA_PX**2))
        self.register_buffer("window", window / window.sum(), persistent=False)

    def forward(self, sr: Float[Tensor, "n c h w"], gt: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Compare two batches of images.

        Raises:
            ValueError: The shapes differ, or a side is below 11 px.
        """
        check_pair(sr, gt)
        exponents = self._exponents(min(sr.shape[-2:]))
        product = torch.ones(sr.shape[:2], device=sr.device)
        sr, gt = sr.float(), gt.float()
        for exponent in exponents[:-1]:
            # A power of zero has no finite gradient; opposite structures are below it.
            product = product * self._terms(sr, gt)[1].mean(dim=(2, 3)).clamp(min=1e-6) ** exponent
            sr, gt = F.avg_pool2d(sr, 2), F.avg_pool2d(gt, 2)
        luminance, structure = self._terms(sr, gt)
        return 1 - (product * (luminance * structure).mean(dim=(2, 3)).clamp(min=1e-6) ** exponents[-1]).mean()

    @staticmethod
    def _exponents(side_px: int) -> list[float]:
        fitting = [exponent for scale, exponent in enumerate(_EXPONENTS) if side_px >> scale >= _WINDOW_PX]
        if not fitting:
            raise ValueError(f"the MS-SSIM loss needs crops of at least {_WINDOW_PX} px; got {side_px}")
        return [exponent / sum(fitting) for exponent in fitting]

    def _terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Luminance term, and contrast and structure in one, at every place of the window."""
        mean_x, mean_y = self._mean(x), self._mean(y)
        variances = self._mean(x * x) - mean_x**2 + self._mean(y * y) - mean_y**2
        covariance = self._mean(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
        return luminance, (2 * covariance + _C2) / (variances + _C2)

    def _mean(self, image: Tensor) -> Tensor:
        channels = image.shape[1]
        rows = self.window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        columns = self.window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)


IMAGE_LOSSES.add(ImageLoss("ms_ssim", MsSsimLoss))

"""SRVGGNetCompact, the small generator of Real-ESRGAN: a plain stack of convolutions at low resolution.

Guarantees: any input size; the keys `body.N` of Real-ESRGAN. With 64 features, 16 convolutions and x4 it has
621,424 parameters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.shapes import check_finite, check_image

_ACTIVATIONS = ("prelu", "relu", "leakyrelu")


def _build_activation(name: str, num_features: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(num_features)
    return nn.ReLU() if name == "relu" else nn.LeakyReLU(0.1)


class SRVGGNetCompact(nn.Module):
    """VGG-style generator that works at the input's resolution and ends with a pixel shuffle.

    Args:
        num_features: Channels between the convolutions.
        num_convs: Convolutions between the first and the last.
        scale: Upscaling factor, at least 1.
        activation: "prelu", "relu" or "leakyrelu" (slope 0.1).

    Raises:
        ValueError: The activation is not known or the scale is below 1.

    References:
        Wang et al. 2021, Real-ESRGAN; the released code's srvgg_arch.py (realesr-animevideov3,
        realesr-general-x4v3).
    """

    def __init__(self, num_features: int = 64, num_convs: int = 16, scale: int = 4, activation: str = "prelu") -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}; got {activation!r}")
        if scale < 1:
            raise ValueError(f"scale must be at least 1; got {scale}")
        self.scale = scale
        layers: list[nn.Module] = []
        for index in range(num_convs + 1):
            layers.append(nn.Conv2d(num_features if index else 3, num_features, 3, padding=1))
            layers.append(_build_activation(activation, num_features))
        layers.append(nn.Conv2d(num_features, 3 * scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale a batch.

        Args:
            lq: (n, 3, h, w), RGB in [0, 1], any size.

        Returns:
            (n, 3, h * scale, w * scale), not clamped.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or not finite (looked at in evaluation mode, on the CPU).
        """
        check_image(lq, "lq")
        if not self.training:
            check_finite(lq, "lq")
        detail = F.pixel_shuffle(self.body(lq), self.scale)
        return detail + F.interpolate(lq, scale_factor=self.scale, mode="nearest")

"""SRVGGNetCompact, the small generator of Real-ESRGAN: a plain stack of convolutions at low resolution.

Guarantees: any input size; the names `body.N` of Real-ESRGAN. With 64 features, 16 convolutions and x4 it has
621,424 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.generators.compact_options import CompactOptions
from pipeline.models.generators.contract import (
    Generator,
    GeneratorArchitecture,
    check_rgb,
)
from pipeline.models.generators.options import GENERATORS

_ACTIVATIONS = ("prelu", "relu", "leakyrelu")


class SRVGGNetCompact(Generator):
    """VGG-style generator that works at the input's resolution and ends with a pixel shuffle.

    Args:
        num_features: Channels between the convolutions.
        num_convs: Convolutions between the first and the last.
        scale: Upscaling factor, at least 1.
        activation: "prelu", "relu" or "leakyrelu" (slope 0.1).

    Raises:
        ValueError: The activation does not exist or the scale is below 1.

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

    def forward(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Upscale a batch of RGB images in [0, 1], of any size; the output is not clamped.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or (checked in evaluation mode, on the CPU) not finite.
        """
        self.check_input(lq)
        detail = F.pixel_shuffle(self.detail(lq), self.scale)
        return detail + F.interpolate(lq, scale_factor=self.scale, mode="nearest")

    def detail(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Return what is added to the enlarged input, before its pixels are shuffled; c is 3 * scale ** 2."""
        return self.body(lq)


def _build_activation(name: str, num_features: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(num_features)
    return nn.ReLU() if name == "relu" else nn.LeakyReLU(0.1)


class CompactArchitecture(GeneratorArchitecture[CompactOptions]):
    """SRVGGNetCompact; files have the network's own names."""

    name = "compact"
    options = CompactOptions
    network = SRVGGNetCompact
    modelspec = "realesrgan-compact"

    def build(self, options: CompactOptions) -> SRVGGNetCompact:
        """See `GeneratorArchitecture`."""
        return SRVGGNetCompact(options.num_features, options.num_blocks, options.scale, options.activation)

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> CompactOptions | None:
        """See `GeneratorArchitecture`. ReLU and LeakyReLU leave no trace in a file; ReLU is assumed."""
        if "body.0.weight" not in state or not all(name.startswith("body.") for name in state):
            return None
        convolutions = [name for name, tensor in state.items() if tensor.ndim == 4]
        channels = state["body.0.weight"].shape[1]
        check_rgb(self, channels, channels)
        # An activation stands between two convolutions, and PReLU alone has weights.
        last = state[f"body.{2 * (len(convolutions) - 1)}.weight"]
        return CompactOptions(
            scale=math.isqrt(last.shape[0] // 3),
            num_features=state["body.0.weight"].shape[0],
            num_blocks=len(convolutions) - 2,
            activation="prelu" if "body.1.weight" in state else "relu",
        )


COMPACT = GENERATORS.add(CompactArchitecture())

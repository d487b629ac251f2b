"""Pixel-wise discriminator: U, the U-Net with spectral norm of Real-ESRGAN, and U+SeD.

Guarantees: U has 4,376,897 parameters, U+SeD 10,158,417 with 1024 semantic channels. One logit per pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator, activate, build_merge, fuse
from pipeline.models.discriminators.contract import DiscriminatorArchitecture
from pipeline.models.discriminators.options import DISCRIMINATORS
from pipeline.models.discriminators.sed_layout import from_sed, to_sed
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.discriminators.unet_options import UNetOptions
from pipeline.models.ops.upsampled_convolution import upsampled_convolution

PLACEMENTS = ("decoder", "encoder")


class UNetDiscriminator(Discriminator):
    """U-Net with spectral norm, optionally semantic-aware.

    U+SeD fuses at the bottom and, going up, after each of the first two skip connections; the two upper
    merges have no activation. The paper's figure draws the blocks in the encoder; the default follows the
    released code.

    Args:
        num_features: Channels at full resolution.
        semantic_channels: Channels of the semantics, 1024 for CLIP RN50's third layer; None for plain U.
        fusion: How image and semantics are combined, see `SemanticFusionBlock`; for ablations.
        residual: Skip connections inside the fusion blocks; for ablations.
        placement: "decoder", or "encoder" as the figure has it: after each strided convolution, before its
            activation.

    Raises:
        ValueError: No such fusion or placement exists.

    References:
        Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, Sec. 3.4 (U). Li et al. 2024, SeD, arXiv:2402.19387,
        Sec. 3.2, and the released models/sed.py, lines 119-193 (U+SeD).
    """

    logit_stride_px = 1
    features_layer = "conv9"

    def __init__(
        self,
        num_features: int = 64,
        semantic_channels: int | None = None,
        *,
        fusion: str = "cross_attention",
        residual: bool = False,
        placement: str = "decoder",
    ) -> None:
        super().__init__(semantic_channels)
        if placement not in PLACEMENTS:
            raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}; got {placement!r}")
        self.placement = placement
        width = num_features
        self.conv0 = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = SpectralNormConv2d(width, 2 * width, 4, stride=2, bias=False)
        self.conv2 = SpectralNormConv2d(2 * width, 4 * width, 4, stride=2, bias=False)
        self.conv3 = SpectralNormConv2d(4 * width, 8 * width, 4, stride=2, bias=False)
        self.conv4 = SpectralNormConv2d(8 * width, 4 * width, 3, bias=False)
        self.conv5 = SpectralNormConv2d(4 * width, 2 * width, 3, bias=False)
        self.conv6 = SpectralNormConv2d(2 * width, width, 3, bias=False)
        self.conv7 = SpectralNormConv2d(width, width, 3, bias=False)
        self.conv8 = SpectralNormConv2d(width, width, 3, bias=False)
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)
        if semantic_channels is not None:
            build = partial(SemanticFusionBlock, semantic_channels, fusion=fusion, residual=residual)
            self._add_fusion(width, build)

    def _add_fusion(self, width: int, build: Callable[..., SemanticFusionBlock]) -> None:
        self.fusion3 = build(8 * width, 2)
        self.merge3 = build_merge(self.fusion3, 8 * width)
        self.fusion2 = build(4 * width, 4)
        self.merge2 = build_merge(self.fusion2, 4 * width)
        self.fusion1 = build(2 * width, 8)
        self.merge1 = build_merge(self.fusion1, 2 * width)

    def logits(
        self, image: Float[Tensor, "n 3 h w"], semantics: Float[Tensor, "n c grid_h grid_w"] | None
    ) -> Float[Tensor, "n 1 h w"]:
        """Return one logit per pixel."""
        down = semantics if self.placement == "encoder" else None
        up = semantics if self.placement == "decoder" else None
        level0 = activate(self.conv0(image))
        level1 = activate(self._fuse(1, self.conv1(level0), down))
        level2 = activate(self._fuse(2, self.conv2(level1), down))
        features = activate(self._fuse(3, self.conv3(level2), semantics))
        features = activate(_upsample(self.conv4, features)) + level2
        features = self._fuse(2, features, up)
        features = activate(_upsample(self.conv5, features)) + level1
        features = self._fuse(1, features, up)
        features = activate(_upsample(self.conv6, features)) + level0
        features = activate(self.conv7(features))
        return self.conv9(activate(self.conv8(features)))

    def _fuse(self, level: int, features: Tensor, semantics: Tensor | None) -> Tensor:
        if semantics is None:
            return features
        merge, fusion = {
            1: (self.merge1, self.fusion1),
            2: (self.merge2, self.fusion2),
            3: (self.merge3, self.fusion3),
        }[level]
        return fuse(merge, fusion, features, semantics)


def _upsample(convolution: SpectralNormConv2d, features: Tensor) -> Tensor:
    return upsampled_convolution(features, convolution.normalised_weight())


class UNetArchitecture(DiscriminatorArchitecture[UNetOptions]):
    """U, whose released weights have Real-ESRGAN's names, and U+SeD, whose names are SeD's."""

    name = "unet"
    options = UNetOptions
    network = UNetDiscriminator

    def build(self, options: UNetOptions, semantic_channels: int | None, crop_px: int) -> UNetDiscriminator:
        """See `DiscriminatorArchitecture`."""
        return UNetDiscriminator(
            options.num_features,
            semantic_channels,
            fusion=options.fusion,
            residual=options.residual,
            placement=options.placement,
        )

    def import_state(self, network: UNetDiscriminator, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `DiscriminatorArchitecture`."""
        return from_sed(state, network.state_dict().keys())

    def export_state(self, options: UNetOptions, state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
        """See `DiscriminatorArchitecture`."""
        return ("sed", to_sed(state)) if options.is_released else super().export_state(options, state)


DISCRIMINATORS.add(UNetArchitecture())

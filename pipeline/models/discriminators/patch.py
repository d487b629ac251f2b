"""Patch-wise discriminator: P, the 3-layer PatchGAN, and P+SeD.

Guarantees: P has 2,764,737 parameters, P+SeD 10,090,433 with 1024 semantic channels. A crop of S px gives
(S / 8 - 2) squared logits; each sees 70 px of the image, and through the semantics all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator, activate, build_merge, fuse
from pipeline.models.discriminators.contract import DiscriminatorArchitecture
from pipeline.models.discriminators.options import DISCRIMINATORS
from pipeline.models.discriminators.patch_options import PatchOptions
from pipeline.models.discriminators.sed_layout import from_sed, to_sed
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d


class PatchDiscriminator(Discriminator):
    """PatchGAN with spectral norm, optionally semantic-aware.

    Three strided convolutions; after each, P+SeD fuses the features (before their activation) with the
    semantics and merges both by a 3x3 convolution.

    Args:
        num_features: Channels of the first layer.
        semantic_channels: Channels of the semantics, 1024 for CLIP RN50's third layer; None for plain P.
        fusion: How image and semantics are combined, see `SemanticFusionBlock`; for ablations.
        residual: Skip connections inside the fusion blocks; for ablations.

    References:
        Isola et al. 2017, pix2pix, arXiv:1611.07004 (P). Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.2, and
        the released models/sed.py, lines 52-116 (P+SeD; normal initialisation with 0.02 of all convolutions
        and linear layers, the fusion's last projection included, as there).
    """

    # Below this the last convolution has no input left.
    smallest_side_px = 32
    # Logit i reads 70 px around the middle of the 8 px that begin at 8 (i + 1).
    logit_stride_px = 8
    logit_margin_px = 8
    features_layer = "conv_last"

    def __init__(
        self,
        num_features: int = 64,
        semantic_channels: int | None = None,
        *,
        fusion: str = "cross_attention",
        residual: bool = False,
    ) -> None:
        super().__init__(semantic_channels)
        width = num_features
        self.conv_first = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.conv1 = SpectralNormConv2d(width, 2 * width, 4, stride=2, bias=True)
        self.conv2 = SpectralNormConv2d(2 * width, 4 * width, 4, stride=2, bias=True)
        self.conv3 = SpectralNormConv2d(4 * width, 8 * width, 4, bias=True)
        self.conv_last = nn.Conv2d(8 * width, 1, 4, padding=1)
        if semantic_channels is not None:
            build = partial(SemanticFusionBlock, semantic_channels, fusion=fusion, residual=residual)
            self._add_fusion(width, build)
        self.apply(_initialise)

    def _add_fusion(self, width: int, build: Callable[..., SemanticFusionBlock]) -> None:
        self.fusion1 = build(2 * width, 4)
        self.merge1 = build_merge(self.fusion1, 2 * width)
        self.fusion2 = build(4 * width, 2)
        self.merge2 = build_merge(self.fusion2, 4 * width)
        self.fusion3 = build(8 * width, 2, trims_one=True)
        self.merge3 = build_merge(self.fusion3, 8 * width)

    def logits(
        self, image: Float[Tensor, "n 3 h w"], semantics: Float[Tensor, "n c grid_h grid_w"] | None
    ) -> Float[Tensor, "n 1 rows columns"]:
        """Return logits on a grid of (h / 8 - 2, w / 8 - 2)."""
        features = activate(self.conv_first(image))
        features = self.conv1(features)
        if semantics is not None:
            features = fuse(self.merge1, self.fusion1, features, semantics)
        features = self.conv2(activate(features))
        if semantics is not None:
            features = fuse(self.merge2, self.fusion2, features, semantics)
        features = self.conv3(activate(features))
        if semantics is not None:
            features = fuse(self.merge3, self.fusion3, features, semantics)
        return self.conv_last(activate(features))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, SpectralNormConv2d):
        module.reset_vectors()


class PatchArchitecture(DiscriminatorArchitecture[PatchOptions]):
    """P and P+SeD; released weights of the latter have SeD's names."""

    name = "patch"
    options = PatchOptions
    network = PatchDiscriminator

    def build(self, options: PatchOptions, semantic_channels: int | None, crop_px: int) -> PatchDiscriminator:
        """See `DiscriminatorArchitecture`."""
        return PatchDiscriminator(
            options.num_features, semantic_channels, fusion=options.fusion, residual=options.residual
        )

    def import_state(self, network: PatchDiscriminator, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `DiscriminatorArchitecture`."""
        return from_sed(state, network.state_dict().keys())

    def export_state(self, options: PatchOptions, state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
        """See `DiscriminatorArchitecture`."""
        return ("sed", to_sed(state)) if options.is_released else super().export_state(options, state)


DISCRIMINATORS.add(PatchArchitecture())

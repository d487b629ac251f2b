"""Feature discriminator: heads on the features of a frozen vision model at several layers.

It discriminates semantics, where SeD conditions on them: alone it is the discriminator of today's one-step trainers,
beside P+SeD the other side of a comparison.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import SLOPE, Discriminator
from pipeline.models.discriminators.contract import DiscriminatorArchitecture
from pipeline.models.discriminators.features_options import FeatureOptions
from pipeline.models.discriminators.options import DISCRIMINATORS
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import FrozenMaps, build_frozen_maps


class FeatureDiscriminator(Discriminator):
    """Frozen features at several layers, each with a head of three convolutions, two of them spectrally normalised.

    All maps are on the grid of one cell per 16 px, so that every layer has the same weight in the loss. The frozen
    network is no part of the module: it is neither trained nor saved nor averaged over ranks, but it moves along.

    Args:
        frozen: The frozen network at its layers.
        num_features: Channels of a head.

    References:
        Kumari et al. 2022, Vision-aided GAN, arXiv:2112.09130, Sec. 3.2; Sauer et al. 2021, Projected GANs,
        arXiv:2111.01007, Sec. 3 (heads on several layers).
    """

    logit_stride_px = SEMANTIC_STRIDE_PX

    def __init__(self, frozen: FrozenMaps, num_features: int = 64) -> None:
        super().__init__(None)
        self._frozen = (frozen,)  # in a tuple: not a part of this module
        self.heads = nn.ModuleList(_build_head(channels, num_features) for channels in frozen.num_channels)

    def logits(
        self, image: Float[Tensor, "n 3 h w"], semantics: Tensor | None
    ) -> Float[Tensor, "n levels grid_h grid_w"]:
        """Return one logit per layer and cell of 16 px."""
        (frozen,) = self._frozen
        return torch.cat([head(each) for head, each in zip(self.heads, frozen.maps(image), strict=True)], dim=1)

    @property
    def description(self) -> str:
        """See `Discriminator`."""
        (frozen,) = self._frozen
        return f"features of {frozen.description}"

    @property
    def frozen_networks(self) -> tuple[FrozenMaps, ...]:
        """See `Discriminator`."""
        return self._frozen

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureDiscriminator:
        (frozen,) = self._frozen
        frozen._apply(fn, recurse)
        return super()._apply(fn, recurse)


def _build_head(channels: int, num_features: int) -> nn.Sequential:
    return nn.Sequential(
        SpectralNormConv2d(channels, num_features, 3, bias=True),
        nn.LeakyReLU(SLOPE, inplace=True),
        SpectralNormConv2d(num_features, num_features, 3, bias=True),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(num_features, 1, 1),
    )


class FeatureArchitecture(DiscriminatorArchitecture[FeatureOptions]):
    """The feature discriminator; files hold its heads under our names."""

    name = "features"
    options = FeatureOptions
    network = FeatureDiscriminator

    def build(self, options: FeatureOptions, semantic_channels: int | None, crop_px: int) -> FeatureDiscriminator:
        """See `DiscriminatorArchitecture`."""
        frozen = build_frozen_maps(options.backbone, options.layers, options.weights, options.seed, crop_px)
        return FeatureDiscriminator(frozen, options.num_features)


DISCRIMINATORS.add(FeatureArchitecture())

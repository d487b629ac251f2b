"""Image-wise discriminator: I, in the manner of VGG, and I+SeD.

Guarantees: one logit per image, any crop whose sides are multiples of 16. The paper names an image-wise
variant but releases no code for it; the class lists what is our own design.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator, activate, build_merge, fuse
from pipeline.models.discriminators.contract import DiscriminatorArchitecture
from pipeline.models.discriminators.image_options import ImageOptions
from pipeline.models.discriminators.options import DISCRIMINATORS
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d


class ImageDiscriminator(Discriminator):
    """VGG-style discriminator with spectral norm, optionally semantic-aware.

    Each of four stages is a 3x3 convolution and a strided 4x4 one, as in the discriminators of SRGAN and
    ESRGAN. Ours: spectral norm instead of batch norm (as in P and U, and independent of the other images of a
    batch), and the mean over the image instead of a flattened grid, so that any crop size fits. I+SeD
    fuses the features of the first three stages, before their activation, with the same blocks and the same
    merge as U+SeD (factors 8, 4 and 2).

    Args:
        num_features: Channels of the first layer.
        semantic_channels: Channels of the semantics; None for plain I.
        fusion: How image and semantics are combined, see `SemanticFusionBlock`; for ablations.
        residual: Skip connections inside the fusion blocks; for ablations.

    References:
        Ledig et al. 2017, SRGAN, arXiv:1609.04802, Sec. 2.1.1. Li et al. 2024, SeD, arXiv:2402.19387, Sec.
        3.2.
    """

    features_layer = "conv4"  # behind it, the mean over the image leaves no place

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
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = SpectralNormConv2d(width, width, 4, stride=2, bias=True)
        self.conv11 = SpectralNormConv2d(width, 2 * width, 3, bias=True)
        self.conv2 = SpectralNormConv2d(2 * width, 2 * width, 4, stride=2, bias=True)
        self.conv21 = SpectralNormConv2d(2 * width, 4 * width, 3, bias=True)
        self.conv3 = SpectralNormConv2d(4 * width, 4 * width, 4, stride=2, bias=True)
        self.conv31 = SpectralNormConv2d(4 * width, 8 * width, 3, bias=True)
        self.conv4 = SpectralNormConv2d(8 * width, 8 * width, 4, stride=2, bias=True)
        self.linear = nn.Linear(8 * width, 100)
        self.linear_last = nn.Linear(100, 1)
        if semantic_channels is not None:
            build = partial(SemanticFusionBlock, semantic_channels, fusion=fusion, residual=residual)
            self._add_fusion(width, build)

    def _add_fusion(self, width: int, build: Callable[..., SemanticFusionBlock]) -> None:
        self.fusion1 = build(width, 8)
        self.merge1 = build_merge(self.fusion1, width)
        self.fusion2 = build(2 * width, 4)
        self.merge2 = build_merge(self.fusion2, 2 * width)
        self.fusion3 = build(4 * width, 2)
        self.merge3 = build_merge(self.fusion3, 4 * width)

    def logits(
        self, image: Float[Tensor, "n 3 h w"], semantics: Float[Tensor, "n c grid_h grid_w"] | None
    ) -> Float[Tensor, "n 1"]:
        """Return one logit per image."""
        features = self.conv1(activate(self.conv_first(image)))
        if semantics is not None:
            features = fuse(self.merge1, self.fusion1, features, semantics)
        features = activate(self.conv11(activate(features)))
        features = self.conv2(features)
        if semantics is not None:
            features = fuse(self.merge2, self.fusion2, features, semantics)
        features = activate(self.conv21(activate(features)))
        features = self.conv3(features)
        if semantics is not None:
            features = fuse(self.merge3, self.fusion3, features, semantics)
        features = activate(self.conv31(activate(features)))
        features = activate(self.conv4(features))
        pooled = activate(self.linear(features.mean(dim=(2, 3))))
        return self.linear_last(pooled)


class ImageArchitecture(DiscriminatorArchitecture[ImageOptions]):
    """I and I+SeD; nobody else has this network, so files have its own names."""

    name = "image"
    options = ImageOptions
    network = ImageDiscriminator

    def build(self, options: ImageOptions, semantic_channels: int | None, crop_px: int) -> ImageDiscriminator:
        """See `DiscriminatorArchitecture`."""
        return ImageDiscriminator(
            options.num_features, semantic_channels, fusion=options.fusion, residual=options.residual
        )


DISCRIMINATORS.add(ImageArchitecture())

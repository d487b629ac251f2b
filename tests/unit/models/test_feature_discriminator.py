"""The feature discriminator: frozen features at several layers, trainable heads, and a gradient to the image."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.config.plain import structure
from pipeline.errors import ConfigError
from pipeline.models.discriminators import DiscriminatorOptions, FeatureDiscriminator, build_discriminator
from pipeline.models.discriminators.features_options import FeatureOptions
from pipeline.models.semantics.extractor import build_frozen_maps, build_semantic_extractor

NAME = "timm:tf_efficientnet_lite0"
LAYERS = (1, 2, 3)


def build(weights: str = "random") -> FeatureDiscriminator:
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
    found = build_frozen_maps(NAME, LAYERS, "package").maps(image)[LAYERS.index(layer)]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [("timm:vit_tiny_patch16_224", (3, 0), (192, 192)), ("open_clip:RN50", ("layer3", 1), (256, 1024))],
)
def test_maps_are_in_the_librarys_order(name: str, layers: tuple[int | str, ...], channels: tuple[int, ...]) -> None:
    frozen = build_frozen_maps(name, layers, "random")
    assert frozen.num_channels == channels
    assert [features.shape[1:] for features in frozen.maps(torch.rand(1, 3, 64, 64))] == [(c, 4, 4) for c in channels]


def test_network_of_a_fixed_size_is_built_for_the_crop_and_takes_no_other() -> None:
    options = FeatureOptions(backbone="timm:tnt_s_patch16_224", layers=(0, 1), weights="random", num_features=4)
    network = build_discriminator(options, 0, 192)
    assert network(torch.rand(1, 3, 192, 192)).shape == (1, 2, 12, 12)
    with pytest.raises(ConfigError, match=r"of images of 192 px alone, was built for these; got an image of 224 x 224"):
        network(torch.rand(1, 3, 224, 224))


def test_layer_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layers 3, -2 name one layer twice"):
        build_frozen_maps(NAME, (3, -2), "random")


def test_gradient_reaches_the_image_and_the_heads_and_nothing_of_the_frozen_network() -> None:
    network, image = build(), torch.rand(1, 3, 64, 64, requires_grad=True)
    network(image).mean().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert {name.partition(".")[0] for name in network.state_dict()} == {"heads"}
    assert not any(tensor.requires_grad for tensor in network._frozen[0].network.parameters())


def test_frozen_network_moves_along() -> None:
    network = build()
    double = copy.deepcopy(network).double()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(double(image.double()).float(), network(image), rtol=1e-3, atol=1e-4)


def test_training_mode_leaves_the_frozen_network_as_it_is() -> None:
    network = build()
    before = copy.deepcopy(network._frozen[0].network.state_dict())
    network.train()(torch.rand(2, 3, 64, 64))
    after = network._frozen[0].network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_dry_run_reads_no_weights() -> None:
    with torch.device("meta"):
        assert build("/nowhere.pth")(torch.empty(1, 3, 64, 64)).shape == (1, 3, 4, 4)


def test_description_names_layers_and_weights() -> None:
    last = "112 channels and 16 of zeros, one cell per 16 px"
    expected = f"features of {NAME}.in1k layers 1, 2, 3, {last}; random weights of seed 0, weights sha256 "
    assert build().description.startswith(expected)


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
        build_frozen_maps(NAME, (3, 9), "random")

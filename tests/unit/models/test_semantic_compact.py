"""The generator that is shown semantics: what it begins as, what trains in it, and its files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.generators import (
    GENERATORS,
    SRVGGNetCompact,
    build_generator,
    load_generator,
    recognise_generator,
    save_generator,
    start_generator,
)
from pipeline.models.generators.semantic_compact import SemanticCompact
from pipeline.models.generators.semantic_compact_options import SemanticCompactOptions


def options(scale: int = 4, **changed) -> SemanticCompactOptions:
    given = {"semantics": "timm:test_resnet", "semantics_weights": "random", "num_features": 8, "num_blocks": 2}
    return SemanticCompactOptions(scale=scale, **(given | changed))


def awake(network: SemanticCompact) -> SemanticCompact:
    """Give the transforms, which begin as zeros, weights that let semantics through."""
    torch.manual_seed(3)
    for transform in network.transforms:
        torch.nn.init.normal_(transform.weight, std=0.3)
    return network


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(7, 12), (16, 16)])
def test_begins_as_the_plain_generator_of_the_same_weights(scale, size):
    network = build_generator(options(scale))
    plain = SRVGGNetCompact(8, 2, scale)
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name.startswith("body.")})
    lq = torch.rand(2, 3, *size)
    assert torch.equal(network(lq), plain(lq))


def test_starts_from_the_file_of_a_plain_one(tmp_path: Path):
    plain = SRVGGNetCompact(8, 2, 4)
    save_generator(tmp_path / "plain.safetensors", plain)
    partial = options(initial_weights=tmp_path / "plain.safetensors", initial_weights_partial=True)
    network, weights = start_generator(partial, 64)
    assert weights.left_out
    lq = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(lq), plain(lq))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_semantics_of_a_place_change_the_output_there(scale):
    network = awake(build_generator(options(scale)))
    lq = torch.rand(1, 3, 16, 16)
    before = network(lq)
    maps = network.extractor.maps
    network.extractor.maps = lambda image: [-features for features in maps(image)]
    assert not torch.allclose(network(lq), before, atol=1e-4)


def test_vision_model_is_part_of_the_network_but_nothing_trains_it():
    network = awake(build_generator(options()))
    assert not any(name.startswith("extractor.") for name, _ in network.named_parameters())
    frozen = copy.deepcopy({name: v for name, v in network.state_dict().items() if name.startswith("extractor.")})
    assert len(frozen) > 10
    network.train()
    lq = torch.rand(2, 3, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    network(lq).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("scale", [2, 4])
def test_exported_file_holds_the_vision_model_and_tells_which(tmp_path: Path, scale):
    torch.manual_seed(0)
    network = awake(build_generator(options(scale, activation="prelu"))).eval()
    save_generator(tmp_path / "generator.safetensors", network)
    read = recognise_generator(network.state_dict(), scale)
    assert (read.architecture, read.semantics, read.semantics_layer) == ("semantic_compact", "timm:test_resnet", 3)
    lq = torch.rand(1, 3, 11, 13)
    assert torch.equal(load_generator(tmp_path / "generator.safetensors")(lq), network(lq))


def test_vision_model_for_one_size_alone_is_refused():
    with pytest.raises(ConfigError, match="takes images of one size alone"):
        build_generator(options(semantics="timm:tnt_s_patch16_224", semantics_layer=0))


def test_sizes_are_known_without_weights():
    with torch.device("meta"):
        network = GENERATORS["semantic_compact"].build(options(semantics_weights="/not/there"))
    assert network(torch.empty(1, 3, 16, 16, device="meta")).shape == (1, 3, 64, 64)

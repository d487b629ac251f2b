"""Semantic extractors against what earlier versions computed, and against the libraries' own whole networks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_fill import GOLDEN, draw_image, relative_error
from torch import Tensor

from pipeline.models.semantics.extractor import SemanticExtractor, build_semantic_extractor, open_vision_model
from pipeline.models.semantics.vision_model import materialise, truncate
from pipeline.models.semantics.weights import WeightFile, fill_randomly, load_network

# The largest difference to the networks that were written by hand; all but the transformer's, whose attention is
# another, were equal bit for bit.
TOLERANCE = 1e-6
# Every eighth channel, for the image below. EfficientNet's tensors had other names, which the hash is over too.
RECORDED = np.load(GOLDEN / "extractors.npz")
HASHES: dict[str, str] = json.loads(str(RECORDED["weights_sha256"]))
CASES = [
    ("clip-rn50", 1, "open_clip:RN50", 1),
    ("clip-rn50", 3, "open_clip:RN50", "layer3"),
    ("clip-rn50", 4, "open_clip:RN50", -1),
    ("clip-rn101", 3, "open_clip:RN101:openai", 3),
    ("clip-rn50x4", 2, "open_clip:RN50x4", 2),
    ("clip-vit-b16", 3, "open_clip:ViT-B-16", 2),
    ("imagenet-rn50", 3, "timm:resnet50.tv_in1k", "layer3"),
    ("efficientnet-lite0", 3, "timm:tf_efficientnet_lite0", "blocks.2"),
    ("efficientnet-lite0", 5, "timm:tf_efficientnet_lite0", "blocks.4"),
]


@pytest.mark.parametrize(("old", "old_layer", "architecture", "layer"), CASES)
def test_features_and_hash_are_those_of_the_networks_that_were_written_by_hand(old, old_layer, architecture, layer):
    weights = "package" if "efficientnet" in old else "random"
    extractor = build_semantic_extractor(architecture, layer, weights, seed=3)
    got = extractor(draw_image((1, 3, 64, 96), 9000))
    wanted = torch.from_numpy(RECORDED[f"{old} {old_layer}"])
    assert relative_error(got[:, ::8], wanted) < TOLERANCE
    if weights == "random":
        assert extractor.weights_sha256 == HASHES[f"{old} {old_layer}"]
    renamed = build_semantic_extractor(old, old_layer, "package" if weights == "package" else "random", seed=3)
    assert (renamed.name, renamed.weights_sha256) == (extractor.name, extractor.weights_sha256)


def extractor_of_whole(architecture: str, layer: int | str) -> tuple[SemanticExtractor, Any]:
    """An extractor, and the library's whole network with the same random weights."""
    model = open_vision_model(architecture)
    whole = model.build_on("cpu")
    fill_randomly(whole, 1)
    backbone = materialise(truncate(model, (layer,), 256))
    load_network(backbone.network, model.names, WeightFile("whole", whole.state_dict()))
    return SemanticExtractor(backbone, preprocessing=model.preprocessing, origin="whole"), whole


def normalised(extractor: SemanticExtractor, image: Tensor) -> Tensor:
    return (image - extractor.mean) / extractor.std


def test_truncated_clip_resnet_equals_the_whole_one() -> None:
    extractor, whole = extractor_of_whole("open_clip:RN50", 3)
    image = draw_image((2, 3, 64, 96), 1)
    with torch.no_grad():
        wanted = whole.layer3(whole.layer2(whole.layer1(whole.stem(normalised(extractor, image)))))
    assert torch.equal(extractor(image), wanted)


def test_truncated_clip_transformer_equals_the_whole_one_at_its_own_size() -> None:
    extractor, whole = extractor_of_whole("open_clip:ViT-B-16", 1)
    image = draw_image((1, 3, 224, 224), 1)
    with torch.no_grad():
        wanted = whole.forward_intermediates(normalised(extractor, image), indices=[1])["image_intermediates"][0]
    assert relative_error(extractor(image), wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("timm:vit_small_patch16_dinov3", 3),
        ("timm:convnext_tiny", 2),
        ("timm:samvit_base_patch16", 2),
        ("open_clip:ViT-B-16-SigLIP2-256", 1),
    ],
)
@pytest.mark.parametrize("side_px", [256, 192])
def test_truncated_network_of_timm_equals_the_whole_one(architecture, layer, side_px) -> None:
    extractor, whole = extractor_of_whole(architecture, layer)
    image = draw_image((1, 3, side_px, side_px), 1)
    with torch.no_grad():
        wanted = whole.forward_intermediates(normalised(extractor, image), intermediates_only=True)[layer]
    assert torch.equal(extractor(image), wanted)


def test_patches_of_14_px_see_the_image_resized_to_their_grid() -> None:
    extractor, whole = extractor_of_whole("timm:vit_small_patch14_dinov2", 1)
    image = draw_image((1, 3, 192, 256), 1)
    resized = torch.nn.functional.interpolate(
        normalised(extractor, image), (12 * 14, 16 * 14), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        wanted = whole.forward_intermediates(resized, intermediates_only=True)[1]
    assert wanted.shape == (1, 384, 12, 16)
    assert torch.equal(extractor(image), wanted)

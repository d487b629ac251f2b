"""Semantic extractors against open_clip's and torchvision's own networks with the same weights."""

from __future__ import annotations

import pytest
import torch
from golden_fill import relative_error

from pipeline.models.semantics.extractor import build_semantic_extractor

# One float32 network against another that adds in the same order; only the fused attention differs.
TOLERANCE = 1e-5


def normalised(extractor, image):
    return (image - extractor.mean) / extractor.std


def test_clip_rn50_equals_open_clip_up_to_the_third_layer():
    from open_clip.modified_resnet import ModifiedResNet

    extractor = build_semantic_extractor("clip-rn50", layer=3, weights="random", seed=3)
    visual = ModifiedResNet(layers=[3, 4, 6, 3], output_dim=1024, heads=32, image_size=224, width=64).eval()
    result = visual.load_state_dict(extractor.backbone.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith(("layer4", "attnpool")) for name in result.missing_keys)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        wanted = visual.layer3(visual.layer2(visual.layer1(visual.stem(normalised(extractor, image)))))
    got = extractor(image)
    assert got.shape == (2, 1024, 4, 6)
    assert relative_error(got, wanted) < TOLERANCE


def test_clip_vit_equals_open_clip_up_to_a_block():
    from open_clip.transformer import QuickGELU, VisionTransformer

    extractor = build_semantic_extractor("clip-vit-b16", layer=2, weights="random", seed=3)
    visual = VisionTransformer(224, 16, width=768, layers=2, heads=12, mlp_ratio=4.0, act_layer=QuickGELU).eval()
    result = visual.load_state_dict(extractor.backbone.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith(("ln_post", "proj")) for name in result.missing_keys)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = visual.forward_intermediates(normalised(extractor, image), indices=1)["image_intermediates"][0]
    assert relative_error(extractor(image), wanted) < TOLERANCE


def test_imagenet_rn50_equals_torchvision_up_to_the_third_layer():
    from torchvision.models import resnet50

    extractor = build_semantic_extractor("imagenet-rn50", layer=3, weights="random", seed=3)
    whole = resnet50(weights=None).eval()
    assert not whole.load_state_dict(extractor.backbone.state_dict(), strict=False).unexpected_keys
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = whole.maxpool(whole.relu(whole.bn1(whole.conv1(normalised(extractor, image)))))
        wanted = whole.layer3(whole.layer2(whole.layer1(features)))
    assert relative_error(extractor(image), wanted) < TOLERANCE


@pytest.mark.parametrize(("architecture", "channels"), [("clip-rn101", 1024), ("clip-rn50x4", 1280)])
def test_larger_clip_networks_have_open_clip_names_and_shapes(architecture, channels):
    from open_clip import get_model_config
    from open_clip.modified_resnet import ModifiedResNet

    extractor = build_semantic_extractor(architecture, layer=3, weights="random")
    config = get_model_config({"clip-rn101": "RN101", "clip-rn50x4": "RN50x4"}[architecture])["vision_cfg"]
    with torch.device("meta"):
        visual = ModifiedResNet(config["layers"], 512, 32, image_size=config["image_size"], width=config["width"])
    theirs = {name: tensor.shape for name, tensor in visual.state_dict().items()}
    ours = {name: tensor.shape for name, tensor in extractor.backbone.state_dict().items()}
    assert ours == {name: theirs[name] for name in theirs if not name.startswith(("layer4", "attnpool"))}
    assert extractor.channels == channels

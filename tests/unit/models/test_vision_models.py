"""Vision models of open_clip and timm: any of them, on the grid, truncated, named in full, and refused in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import job_environment
from safetensors.torch import save_file
from timm.models import register_model
from torch import nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.semantics.extractor import build_backbone, build_semantic_extractor, open_vision_model
from pipeline.models.semantics.names import present_names
from pipeline.pretrained.efficientnet import VARIANTS
from shards.errors import InputError

MODELS = [
    ("open_clip:RN50", 3, 1024, "one cell per 16 px"),
    ("open_clip:RN101", 2, 512, "one cell per 8 px, averaged to 16 px"),
    ("open_clip:ViT-B-16", 1, 768, "one cell per 16 px"),
    ("open_clip:ViT-B-16-SigLIP2-256", 1, 768, "one cell per 16 px"),
    ("timm:vit_small_patch14_dinov2", 2, 384, "one cell per 14 px of the image resized by 14/16"),
    ("timm:vit_small_patch16_dinov3", 2, 384, "one cell per 16 px"),
    ("timm:vit_base_patch16_siglip_256.v2_webli", 1, 768, "one cell per 16 px"),
    ("timm:samvit_base_patch16", 1, 768, "one cell per 16 px"),
    ("timm:convnext_tiny", 2, 384, "one cell per 16 px"),
    ("timm:convnext_atto", 3, 320, "one cell per 32 px, interpolated to 16 px"),
    ("timm:tf_efficientnet_lite0", 3, 112, "one cell per 16 px"),
    ("timm:resnet50", 1, 256, "one cell per 4 px, averaged to 16 px"),
]


def image(side_px: int) -> torch.Tensor:
    return torch.rand(1, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("architecture", "layer", "channels", "cells"), MODELS)
def test_map_is_on_the_grid_of_crops_of_256_and_192_px(architecture, layer, channels, cells) -> None:
    extractor = build_semantic_extractor(architecture, layer, "random")
    filled = -channels % 64
    for side_px in (256, 192):
        features = extractor(image(side_px))
        assert features.shape == (1, channels + filled, side_px // 16, side_px // 16)
        assert features[:, :channels].std() > 0.01
        assert not features[:, channels:].any()
    zeros = f" and {filled} of zeros" if filled else ""
    assert extractor.name.endswith(f" layer {layer}, {channels} channels{zeros}, {cells}")
    assert extractor.name in extractor.description
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


@pytest.mark.parametrize(("architecture", "layer"), [model[:2] for model in MODELS])
def test_every_parameter_that_is_kept_reaches_the_map(architecture, layer) -> None:
    backbone = build_backbone(architecture, layer)
    parameters = dict(backbone.network.requires_grad_().named_parameters())
    # A transformer of open_clip resizes its positions, as constants, for every other size than its own.
    side_px = 224 if "open_clip:ViT-B-16" in architecture else backbone.fit.side_px(256)
    image = torch.empty(1, 3, side_px, side_px, device="meta")
    (features,) = backbone.model.maps_of(backbone.network, image, backbone.layers)
    gradients = torch.autograd.grad(features.sum(), list(parameters.values()), allow_unused=True)
    assert [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None] == []


@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_discriminators_take_padded_semantics(network) -> None:
    extractor = build_semantic_extractor("timm:tf_efficientnet_lite0", "blocks.4", "package")
    semantics = extractor(image(64))
    assert network(semantic_channels=extractor.channels, num_features=8)(image(64), semantics).isfinite().all()


def test_layers_are_named_by_index_or_name() -> None:
    names = {build_backbone("timm:vit_small_patch16_dinov3", layer).name for layer in (11, -1, "blocks.11")}
    assert len(names) == 1
    assert names.pop().startswith("timm:vit_small_patch16_dinov3.lvd1689m layer 11, ")
    assert build_backbone("open_clip:RN50", "stem").layer == 0


def test_preprocessing_and_licence_are_the_librarys() -> None:
    siglip = build_backbone("timm:vit_base_patch16_siglip_256", 0).model
    assert siglip.preprocessing.name == "timm: rgb-01, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    assert build_backbone("timm:vit_small_patch16_dinov3", 0).model.licence == "dinov3-license"
    tower = build_backbone("open_clip:ViT-B-16-SigLIP2-256", 0).model
    assert tower.preprocessing.name == "open_clip: rgb-01, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"


def test_weights_of_a_package_have_their_own_preprocessing() -> None:
    package = build_semantic_extractor("timm:tf_efficientnet_lite0", 3, "package")
    from_file = build_semantic_extractor("timm:tf_efficientnet_lite0", 3, VARIANTS["efficientnet-lite0"].weights_file())
    assert package.weights_sha256 == from_file.weights_sha256
    assert package.preprocessing == "package: rgb-01, mean 0.49803922 0.49803922 0.49803922, std " + " ".join(
        ["0.50196078"] * 3
    )
    assert from_file.preprocessing.startswith("timm: rgb-01, mean 0.5 ")


@pytest.mark.parametrize(
    ("architecture", "layer", "words"),
    [
        ("RN50", 3, "names no vision model; use open_clip:NAME"),
        ("torchvision:resnet50", 3, "names no vision model"),
        ("timm:vit_small_patch16_dino3", 3, "did you mean vit_small_patch16_dinov3"),
        ("open_clip:RN51", 3, "open_clip has no model 'RN51'; did you mean RN50"),
        ("open_clip:RN50:laion", 3, "has no weights tagged 'laion'; use one of openai, "),
        ("timm:resnet50.none", 3, "timm:resnet50 has no weights tagged 'none'; use one of a1_in1k"),
        ("open_clip:RN50", 5, r"has the layers 0 to 4 \(stem, layer1, layer2, layer3, layer4\); got semantics.layer=5"),
        ("timm:vit_small_patch16_dinov3", "blocks.12", r"\(blocks.0, blocks.1, ..., blocks.11\); got .*'blocks.12'"),
        ("open_clip:ViT-B-32", 3, "one cell per 32 px, which is coarser than .* such as open_clip:ViT-B-16"),
        ("timm:crossvit_tiny_240", 5, "has no spatial map on the grid of the image: layer 5 returns 192 x 14 x 14"),
        ("clip-rn50", 5, "clip-rn50 has the layers 1, 2, 3, 4; got 5; use semantics.architecture=open_clip:RN50"),
        ("efficientnet-lite0", 4, "has the layers 1, 2, 3, 5, 7; got 4"),
    ],
)
def test_vision_model_that_does_not_fit_is_refused_in_words(architecture, layer, words) -> None:
    with pytest.raises(ConfigError, match=words):
        build_semantic_extractor(architecture, layer, "random")


def test_model_that_returns_no_features_of_its_layers_is_refused() -> None:
    @register_model
    def network_without_a_map(pretrained: bool = False, **_: object) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 3))

    with pytest.raises(ConfigError, match="timm:network_without_a_map has no spatial map: timm returns no features"):
        build_semantic_extractor("timm:network_without_a_map", 0, "random")


def test_image_size_that_a_network_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes no images of 40 x 40 px \(.*40.*\); set --data.crop-px"):
        build_semantic_extractor("timm:vit_small_patch16_dinov3", 0, "random", crop_px=40)


def test_network_of_fixed_positions_is_built_for_the_crop(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("tnt_s_patch16_224", "convit_tiny")}
    for name, file in files.items():
        save_file(open_vision_model(f"timm:{name}").build_on("cpu").state_dict(), file)
    tnt, convit = files.values()
    # At the size of its weights there is nothing to resize.
    own = build_semantic_extractor("timm:tnt_s_patch16_224", 0, tnt, crop_px=224)
    assert own(image(224)).shape == (1, 384, 14, 14)
    assert "alone" not in own.name
    resized = build_semantic_extractor("timm:tnt_s_patch16_224", 0, tnt, crop_px=192)
    assert resized(image(192)).shape == (1, 384, 12, 12)
    assert resized.name.endswith("one cell per 16 px, of images of 192 px alone")
    with pytest.raises(
        ConfigError, match="of images of 192 px alone, was built for these; got an image of 256 x 256 px"
    ):
        resized(image(256))
    # timm resizes the positions of the first when it converts a file, and not those of the second.
    with pytest.raises(
        CheckpointError, match=r"(?s)pos_embed is \(1, 196, 192\), needs.*need --data.crop-px of theirs"
    ):
        build_semantic_extractor("timm:convit_tiny", 0, convit, crop_px=256)


@pytest.mark.parametrize(
    ("old", "present"),
    [
        (("clip-rn50", 3, "openai"), ("open_clip:RN50", 3, "pretrained")),
        (("clip-vit-b16", 12, "clip.pt"), ("open_clip:ViT-B-16", 11, "clip.pt")),
        (("imagenet-rn50", 2, "openai"), ("timm:resnet50.tv_in1k", 2, "pretrained")),
        (("efficientnet-lite0", 5, "package"), ("timm:tf_efficientnet_lite0", 3, "package")),
        (("open_clip:RN50:openai", 3, "openai"), ("open_clip:RN50:openai", 3, "pretrained")),
    ],
)
def test_names_of_earlier_versions_are_understood(old, present) -> None:
    assert present_names(*old) == present
    assert present_names(*present) == present


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("efficientnet-lite0", "set --semantics.weights pretrained or package"),
        ("timm:resnet50", "not those of timm:resnet50; set --semantics.weights pretrained"),
        ("open_clip:RN50:yfcc15m", "not those of open_clip:RN50:yfcc15m"),
    ],
)
def test_openais_weights_of_another_model_are_refused(architecture, words) -> None:
    with pytest.raises(ConfigError, match=words):
        present_names(architecture, 1, "openai")


def test_package_that_has_no_weights_of_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no package holds weights of open_clip:RN50:openai; set .*pretrained"):
        build_semantic_extractor("open_clip:RN50", 1, "package")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("blocks.0.attn.qkv.bias"), "missing blocks.0.attn.qkv.bias"),
        (lambda state: state.update({"blocks.0.attn.q_norm.weight": torch.ones(64)}), "unknown blocks.0.attn.q_norm"),
        (lambda state: state.update({"norm_pre.weight": torch.ones(192)}), "unknown norm_pre.weight"),
        (lambda state: state.update({"blocks.12.norm1.weight": torch.ones(192)}), "unknown blocks.12.norm1.weight"),
        (
            lambda state: state.update({"cls_token": torch.ones(1, 1, 64)}),
            r"cls_token is \(1, 1, 64\), needs \(1, 1, 192\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_a_list(change, fault, tmp_path: Path) -> None:
    state = dict(build_backbone("timm:vit_tiny_patch16_224", 0).model.build_on("cpu").state_dict())
    change(state)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=rf"(?s)not the weights of this vision model.*{fault}"):
        build_semantic_extractor("timm:vit_tiny_patch16_224", 1, tmp_path / "weights.safetensors")


def test_layers_behind_the_one_in_use_may_be_missing_from_a_file(tmp_path: Path) -> None:
    state = dict(build_backbone("timm:vit_tiny_patch16_224", 0).model.build_on("cpu").state_dict())
    save_file(state, tmp_path / "whole.safetensors")
    first = {name: tensor for name, tensor in state.items() if not name.startswith(("blocks.1", "head", "norm"))}
    save_file(first, tmp_path / "first.safetensors")
    hashes = {
        build_semantic_extractor("timm:vit_tiny_patch16_224", 0, tmp_path / name).weights_sha256
        for name in ("whole.safetensors", "first.safetensors")
    }
    assert len(hashes) == 1


def test_original_files_are_converted_as_timm_converts_them(tmp_path: Path) -> None:
    whole = build_backbone("timm:vit_small_patch14_dinov2", 0).model.build_on("cpu")
    state = dict(whole.state_dict())
    save_file(state, tmp_path / "timm.safetensors")
    # Meta's own file has a token for masks, which timm's network has not.
    save_file(state | {"mask_token": torch.zeros(1, 384)}, tmp_path / "meta.safetensors")
    ours, metas = (
        build_semantic_extractor("timm:vit_small_patch14_dinov2", 1, tmp_path / name)
        for name in ("timm.safetensors", "meta.safetensors")
    )
    assert ours.weights_sha256 == metas.weights_sha256


def test_model_whose_weights_no_library_has_names_the_licence_and_a_way() -> None:
    with pytest.raises(InputError, match=r"no weights of timm:\S+ \(licence: .*\); get them from their authors"):
        build_semantic_extractor("timm:botnet50ts_256", 1, "pretrained")


HUB = '''
import sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Hub(BaseHTTPRequestHandler):
    """Hugging Face's hub: one gated repository, and one with a file of weights."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(open(sys.argv[1], "rb").read())

    def answer(self, content):
        if "dinov3" in self.path:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
            return
        if not self.path.endswith("/model.safetensors"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        size = len(open(sys.argv[1], "rb").read())
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
import os
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from pipeline.models.semantics.extractor import build_semantic_extractor
from shards.errors import InputError
try:
    build_semantic_extractor("timm:vit_small_patch16_dinov3", 1)
except InputError as error:
    print(error)
print(build_semantic_extractor("timm:tf_efficientnet_lite0", 0).description)
'''


def test_weights_are_downloaded_and_a_licence_that_must_be_accepted_is_named(tmp_path: Path) -> None:
    whole = build_backbone("timm:tf_efficientnet_lite0", 0).model.build_on("cpu")
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    environment = job_environment(tmp_path) | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(tmp_path / "weights.safetensors")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refusal, description = done.stdout.splitlines()
    assert (
        "withheld until you accept their licence (dinov3-license): accept it on https://huggingface.co/timm/vit"
        in refusal
    )
    assert "`hf auth login`" in refusal
    assert "published weights, weights sha256 " in description


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_openais_archive_is_read_without_running_its_program(tmp_path: Path) -> None:
    class Clip(nn.Module):
        """As OpenAI's: both towers, in half precision."""

        def __init__(self) -> None:
            super().__init__()
            self.visual = build_backbone("open_clip:RN50", 0).model.build_on("cpu").half()
            self.text_projection = nn.Parameter(torch.zeros(2, 2))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.visual.conv1(image)

    clip = Clip()
    torch.jit.trace(clip.eval(), torch.zeros(1, 3, 8, 8).half()).save(str(tmp_path / "RN50.pt"))
    extractor = build_semantic_extractor("open_clip:RN50", 1, tmp_path / "RN50.pt")
    wanted = clip.visual.layer1[0].conv1.weight.float()
    assert torch.equal(extractor.network.layer1[0].conv1.weight, wanted)

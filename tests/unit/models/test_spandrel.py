"""Generators of spandrel: built, trained, evaluated and written without what disturbs training there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import ROOT
from safetensors.torch import save_file
from spandrel import ModelLoader
from spandrel_sizes import SMALL, small_options

from benchmarks._tables import read_table
from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators import (
    GENERATORS,
    Generator,
    build_generator,
    load_generator,
    recognise_generator,
    save_generator,
)
from pipeline.models.generators.spandrel.architecture import refuse_untested
from pipeline.models.generators.spandrel.options import TESTED
from pipeline.weights.files import hash_weights, read_weights

each_architecture = pytest.mark.parametrize("name", SMALL)


def small(name: str, scale: int = 4, **changes) -> Generator:
    torch.manual_seed(0)
    return build_generator(small_options(name, scale, **changes))


def test_sizes_for_tests_are_there_for_every_architecture_that_is_listed():
    assert SMALL.keys() == TESTED.keys()
    assert {f"spandrel:{name}" for name in TESTED} < {*GENERATORS.names}


def test_table_of_the_documentation_has_every_generator_of_this_package():
    table = read_table(ROOT / "docs" / "benchmarks" / "generators.json")
    rows = [str(row.cells["architecture"]).strip("`") for run in table.runs for row in run.rows]
    assert sorted(rows) == sorted(GENERATORS.names)


@each_architecture
def test_export_is_read_by_spandrel_and_here_with_the_same_output(name, tmp_path):
    generator = small(name).eval()
    path = tmp_path / "generator.safetensors"
    save_generator(path, generator)
    theirs, again = ModelLoader(device="cpu").load_from_file(path), load_generator(path)
    theirs.model.eval()
    assert (theirs.scale, again.scale, type(again)) == (4, 4, type(generator))
    assert recognise_generator(read_weights(path)) == recognise_generator(read_weights(path), scale=4)
    with torch.no_grad():
        for size_px in ((32, 32), (17, 40)):  # whole windows, and sides that are padded on both ways alike
            lq = torch.rand(1, 3, *size_px)
            sr = generator(lq)
            assert sr.shape == (1, 3, size_px[0] * 4, size_px[1] * 4)
            torch.testing.assert_close(theirs(lq.clone()), sr.clamp(0, 1), rtol=0, atol=1e-6)  # RCAN writes into it
            assert torch.equal(again(lq), sr)


@each_architecture
def test_training_reaches_every_parameter_and_evaluation_changes_no_weight(name):
    generator = small(name)
    lq = torch.rand(2, 3, 16, 16)
    kept = lq.clone()
    generator(lq).square().mean().backward()
    assert torch.equal(lq, kept)
    assert all(parameter.grad is not None for parameter in generator.parameters())
    before = hash_weights(generator.state_dict())
    with torch.inference_mode():
        generator.eval()(lq)
    assert hash_weights(generator.state_dict()) == before


@each_architecture
def test_bf16_gradients_are_finite_and_fp16_follows_spandrel(name, tmp_path):
    generator = small(name)
    with torch.autocast("cpu", torch.bfloat16):
        sr = generator(torch.rand(1, 3, 16, 16))
    sr.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())
    save_generator(tmp_path / "g.safetensors", generator)
    descriptor = ModelLoader(device="cpu").load_from_file(tmp_path / "g.safetensors")
    assert descriptor.supports_bfloat16
    assert ("fp16" in GENERATORS[f"spandrel:{name}"].precisions) == descriptor.supports_half


@each_architecture
def test_other_scales_are_built_without_values_too_and_recognised(name):
    real = small(name, 3)
    state = torch.get_rng_state()
    with torch.device("meta"):
        sizes = build_generator(small_options(name, 3)).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert {key: (tensor.shape, tensor.device.type) for key, tensor in sizes.items()} == {
        key: (tensor.shape, "meta") for key, tensor in real.state_dict().items()
    }
    assert recognise_generator(GENERATORS.of(real).export_state(real)) == small_options_found(name, 3)


def small_options_found(name: str, scale: int):
    """What is read off a file: the hyperparameters that differ from spandrel's defaults."""
    architecture = GENERATORS[f"spandrel:{name}"]
    given = {"upsampler": "pixelshuffle"} if architecture.hyperparameters.get("upsampler") == "" else {}
    given |= {"stripe_shift": True} if name == "GRL" else {}
    found = {key: value for key, value in SMALL[name].items() if architecture.hyperparameters[key] != value}
    return replace(small_options(name, scale), hyperparameters=given | found)


def test_span_trains_without_what_it_computes_itself_and_exports_it(tmp_path):
    generator = small("SPAN")
    assert not [name for name in generator.state_dict() if "eval_conv" in name]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.5)
    save_generator(tmp_path / "span.safetensors", generator)
    exported = read_weights(tmp_path / "span.safetensors")
    lq = torch.rand(1, 16, 8, 8)
    branches = generator.conv_2.train()(lq)
    fused = torch.nn.functional.conv2d(
        lq, exported["conv_2.eval_conv.weight"], exported["conv_2.eval_conv.bias"], padding=1
    )
    torch.testing.assert_close(fused[..., 1:-1, 1:-1], branches[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def test_batch_norm_keeps_its_statistics_in_training():
    generator = small("DAT", drop_path_rate=0.0).train()
    norms = [module for module in generator.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    lq = torch.rand(2, 3, 16, 16)
    together = generator(lq)
    apart = torch.cat([generator(image[None]) for image in lq])
    torch.testing.assert_close(apart, together)
    assert norms
    assert all(torch.equal(mean, norm.running_mean) for mean, norm in zip(before, norms, strict=True))


def test_official_grl_and_omnisr_files_are_loaded_without_what_is_no_weight():
    grl = small("GRL")
    state = GENERATORS.of(grl).export_state(grl)
    official = {f"model_g.{name}": tensor for name, tensor in state.items()} | {"loss.weight": torch.zeros(1)}
    assert GENERATORS.of(grl).import_state(official).keys() == grl.state_dict().keys()
    assert recognise_generator(official) == recognise_generator(state)
    omnisr = small("OmniSR")
    counted = omnisr.state_dict() | {"total_ops": torch.zeros(1), "up.0.total_params": torch.zeros(1)}
    assert GENERATORS.of(omnisr).import_state(counted).keys() == omnisr.state_dict().keys()
    assert recognise_generator(counted).architecture == "spandrel:OmniSR"


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("HAT", {"embed_dims": 32}, r"no hyperparameter 'embed_dims'; did you mean 'embed_dim'\?"),
        ("SPAN", {"blocks": 3}, "it has feature_channels, bias, norm, img_range, rgb_mean"),
        ("HAT", {"upscale": 2}, "no hyperparameter 'upscale'"),
        ("HAT", {"in_chans": 1}, "no hyperparameter 'in_chans'"),
        ("HAT", {"norm_layer": "LayerNorm"}, "no hyperparameter 'norm_layer'"),
        ("ATD", {"category_size": 64}, "category_size=64 leaves no trace in a weight file, and .* takes 256"),
        ("RealPLKSR", {"norm_groups": 8}, "norm_groups=8 leaves no trace"),
        ("RGT", {"embed_dim": 16}, "would hold no numbers: the sizes are too small"),
        ("HAT", {"num_heads": [3]}, "generator spandrel:HAT: "),
        ("HAT", {"depths": "many"}, "generator spandrel:HAT: "),
        ("DRCT", {"upsampler": ""}, "spandrel would take files of these sizes for x1, not x4"),
    ],
)
def test_hyperparameters_that_cannot_be_used_are_refused(name, changes, text):
    with pytest.raises(ConfigError, match=text):
        small(name, **changes)


def test_hyperparameter_without_a_default_is_asked_for():
    options = small_options("SAFMN")
    with pytest.raises(ConfigError, match=r"hyperparameters\.dim is required"):
        build_generator(type(options)(architecture=options.architecture, scale=4))


def test_hyperparameters_of_training_alone_need_no_trace():
    generator = small("RGT", drop_path_rate=0.3)
    assert generator.hyperparameters["drop_path_rate"] == 0.3


@pytest.mark.parametrize(
    ("name", "crop_px", "text"),
    [
        ("HAT", 48, "crop_px=48 is too small for the spandrel:HAT generator, which needs at least 64 px at scale 4"),
        ("SAFMN", 48, r"takes multiples of 32 px at scale 4; set --data\.crop-px 64"),
        ("DRCT", 96, r"takes multiples of 64 px at scale 4; set --data\.crop-px 128"),
    ],
)
def test_crops_follow_what_the_network_takes(name, crop_px, text):
    with pytest.raises(ConfigError, match=text):
        build_generator(small_options(name), crop_px)
    assert build_generator(small_options(name), 128).scale == 4


def test_state_dict_that_asks_for_more_layers_than_it_has_is_refused():
    hat = small("HAT").state_dict()
    far = {"layers.0.residual_group.blocks.900000.norm1.weight": torch.zeros(16)}
    with pytest.raises(CheckpointError, match=r"the 3 layers layers\.0\.residual_group\.blocks\.N have gaps"):
        recognise_generator(hat | far)
    groups = {f"body.{number}.x": torch.zeros(1) for number in range(3, 100)}
    blocks = {f"body.0.body.{number}.x": torch.zeros(1) for number in range(3, 100)}
    with pytest.raises(CheckpointError, match="its network would be larger than the file"):
        recognise_generator(small("RCAN").state_dict() | groups | blocks)


def test_file_that_lacks_a_part_is_refused_with_the_architecture(tmp_path):
    state = {name: tensor.clone() for name, tensor in small("HAT").state_dict().items()}
    del state["layers.0.residual_group.blocks.1.norm1.weight"]
    save_file(state, tmp_path / "hat.safetensors")
    with pytest.raises(CheckpointError, match=r"hat\.safetensors: .*looks like the generator spandrel:HAT"):
        load_generator(tmp_path / "hat.safetensors")


def test_architecture_that_is_not_listed_is_refused_with_those_that_are():
    from spandrel.architectures.CRAFT import CRAFT

    text = (
        r"it holds a network CRAFT, which spandrel reads.*those tested here are spandrel:ATD.*GENERATORS=CRAFT in the"
    )
    with pytest.raises(CheckpointError, match=text):
        recognise_generator(CRAFT(embed_dim=48, depths=[2], num_heads=[2]).state_dict())
    with pytest.raises(ConfigError, match=r"(?s)'spandrel:CRAFT'.*SED_UNTESTED_GENERATORS=CRAFT"):
        GENERATORS["spandrel:CRAFT"]


UNTESTED = """
import sys, torch
from pipeline.models.generators import GeneratorName, SpandrelOptions, build_generator, load_generator, save_generator
sizes = {"embed_dim": 48, "depths": [2], "num_heads": [2]}
options = SpandrelOptions(architecture=GeneratorName("spandrel:CRAFT"), scale=4, hyperparameters=sizes)
generator = build_generator(options)
save_generator(sys.argv[1], generator)
lq = torch.rand(1, 3, 16, 16)
with torch.no_grad():
    assert torch.equal(load_generator(sys.argv[1])(lq), generator.eval()(lq))
"""


@pytest.mark.slow
def test_architecture_that_is_not_listed_is_tried_at_ones_own_risk(tmp_path: Path) -> None:
    environment = os.environ | {"SED_UNTESTED_GENERATORS": "MoESR, CRAFT"}
    command = [sys.executable, "-W", "ignore", "-c", UNTESTED, str(tmp_path / "craft.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_name_in_the_environment_that_spandrel_has_not_says_what_to_correct(tmp_path: Path) -> None:
    environment = os.environ | {"SED_UNTESTED_GENERATORS": "craft"}
    program = "from pipeline.models.generators import GENERATORS; GENERATORS['spandrel:ATD']"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert "no architecture 'craft' that could be a generator; correct SED_UNTESTED_GENERATORS in the" in done.stderr


def test_file_of_an_architecture_without_a_generator_gets_no_advice_that_fails() -> None:
    from spandrel.architectures.RealCUGAN import UpCunet4x

    text = r"holds a network RealCUGAN, .*; those tested here are [^;]*spandrel:SPAN$"
    with pytest.raises(CheckpointError, match=text):
        refuse_untested(UpCunet4x().state_dict())

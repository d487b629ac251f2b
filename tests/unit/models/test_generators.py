"""Generators: sizes, scales, recomputation and refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from harness import ROOT

from pipeline.errors import ConfigError
from pipeline.models.generators import (
    GENERATORS,
    CompactOptions,
    RRDBNet,
    RRDBOptions,
    SRVGGNetCompact,
    SwinIR,
    SwinIROptions,
    build_generator,
)
from pipeline.models.generators.swinir.windows import (
    join_windows,
    relative_position_index,
    shifted_window_mask,
    split_windows,
)

NATIVE = ("rrdb", "swinir", "compact")


def small_swinir(scale: int = 2, **options) -> SwinIR:
    return SwinIR(scale, embed_dim=12, depths=[2], num_heads=[2], window_px=4, training_size_px=8, **options)


@pytest.mark.parametrize(
    "build",
    [
        lambda scale: RRDBNet(8, 1, 4, scale),
        lambda scale: SRVGGNetCompact(8, 1, scale),
        small_swinir,
    ],
    ids=["rrdb", "compact", "swinir"],
)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size_px", [(1, 3), (7, 10), (16, 8)])
def test_output_of_any_size_is_scaled_exactly(build, scale, size_px):
    torch.manual_seed(0)
    with torch.no_grad():
        sr = build(scale)(torch.rand(2, 3, *size_px))
    assert sr.shape == (2, 3, size_px[0] * scale, size_px[1] * scale)
    assert sr.isfinite().all()


@pytest.mark.parametrize("architecture", NATIVE)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_registry_builds_every_generator_at_every_scale(architecture, scale):
    generator = build_generator(GENERATORS[architecture].options(scale=scale, num_features=12, num_blocks=1))
    assert type(generator) is GENERATORS[architecture].network
    with torch.no_grad():
        assert generator(torch.rand(1, 3, 8, 6)).shape == (1, 3, 8 * scale, 6 * scale)


@pytest.mark.parametrize("network", [RRDBNet(8, 1, 4, 4), SRVGGNetCompact(8, 1, 4), small_swinir(4)])
def test_input_that_is_no_rgb_batch_is_refused(network):
    with pytest.raises(ValueError, match=r"lq must be a batch of shape \(n, 3, h, w\); got \(3, 8, 8\)"):
        network(torch.rand(3, 8, 8))


@pytest.mark.parametrize(
    "build",
    [
        lambda recompute: RRDBNet(8, 2, 4, 4, gradient_checkpointing=recompute),
        lambda recompute: small_swinir(drop_path_probability=0.5, gradient_checkpointing=recompute),
    ],
    ids=["rrdb", "swinir"],
)
def test_gradient_checkpointing_changes_no_bit_of_the_gradients(build):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = build(recompute)
        network(torch.rand(2, 3, 8, 8)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_swinir_state_has_parameters_only():
    network = small_swinir()
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


CHECKED = """
from jaxtyping import install_import_hook
install_import_hook("pipeline.models.generators", "beartype.beartype")
from pipeline.models.generators import GENERATORS, build_generator
from spandrel_sizes import SMALL, small_options
import torch
options = [GENERATORS.options(name)(scale=2, num_features=12, num_blocks=2) for name in NATIVE]
for options in (*map(small_options, SMALL, [2] * len(SMALL)), *options):
    architecture, generator = GENERATORS[options.architecture], build_generator(options)
    architecture.recognise(architecture.export_state(generator), None)
    assert generator(torch.rand(2, 3, 17, 12)).shape == (2, 3, 34, 24)
# The last one shows that the hook is at work: without it the network itself would refuse this, with a ValueError.
try:
    generator(torch.rand(3, 8, 8))
except Exception as error:
    assert "jaxtyping" in type(error).__module__, error
else:
    raise AssertionError("an image without a batch dimension passed")
"""


def test_annotated_shapes_hold_in_every_generator():
    # In a process of its own: the hook checks only modules that are imported under it.
    program = f"NATIVE = {NATIVE}\n{CHECKED}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_swinir_is_one_graph_for_the_compiler():
    torch.manual_seed(0)
    network = small_swinir().eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    lq = torch.rand(1, 3, 7, 10)
    torch.testing.assert_close(compiled(lq), network(lq))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depths": [2, 2]}, "equally long"),
        ({"num_heads": [5]}, "multiple of every num_heads"),
        ({"upsampler": "bicubic"}, "cannot upscale by 2 with 'bicubic'"),
        ({"residual_connection": "2conv"}, "1conv or 3conv"),
    ],
)
def test_swinir_settings_that_do_not_fit_are_refused(options, text):
    settings = {"embed_dim": 12, "depths": [2], "num_heads": [2]} | options
    with pytest.raises(ValueError, match=text):
        SwinIR(2, **settings)


def test_nearest_upsampling_by_three_is_refused():
    with pytest.raises(ValueError, match="cannot upscale by 3"):
        small_swinir(3, upsampler="nearest+conv")


def test_rrdb_scale_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="cannot upscale by 5"):
        RRDBNet(8, 1, 4, 5)


def test_compact_activation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="got 'gelu'"):
        SRVGGNetCompact(8, 1, 2, activation="gelu")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (RRDBOptions(scale=5, num_features=8, num_blocks=1), "generator rrdb: RRDBNet cannot upscale by 5"),
        (SwinIROptions(scale=2, num_features=16, num_blocks=1), "generator swinir: embed_dim must be a multiple"),
        (
            SwinIROptions(scale=2, num_features=12, num_blocks=2, layers_per_block=(2,)),
            r"layers_per_block and num_heads; got \[2\]",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_a_fault_of_the_configuration(options, text):
    with pytest.raises(ConfigError, match=text):
        build_generator(options)


def test_options_are_those_of_their_architecture():
    with pytest.raises(ConfigError, match="CompactOptions are the options of 'compact', not of 'rrdb'"):
        CompactOptions(architecture="rrdb", scale=4, num_features=8, num_blocks=1)


def test_unknown_generator_names_the_nearest():
    with pytest.raises(ConfigError, match="no generator is named 'rddb'; did you mean rrdb"):
        GENERATORS["rddb"]


def test_windows_joined_again_are_the_features():
    features = torch.rand(2, 8, 12, 3)
    windows = split_windows(features, 4)
    assert windows.shape == (2, 6, 16, 3)
    assert torch.equal(windows[0, 1].view(4, 4, 3), features[0, :4, 4:8])
    assert torch.equal(join_windows(windows, 8, 12, 4), features)


def test_relative_positions_depend_on_the_offset_alone():
    index = relative_position_index(3)
    assert index[0, 0] == index[8, 8] == 12
    assert index[0, 1] == index[4, 5] == 11
    assert index[0, 8] == 0
    assert index[8, 0] == 24


def test_shifted_mask_keeps_apart_what_was_not_adjacent():
    mask = shifted_window_mask(8, 8, 4)
    assert mask.shape == (4, 16, 16)
    assert (mask[0] == 0).all()
    # The last window holds pixels of all four corners of the image.
    assert mask[3, 0].view(4, 4).tolist() == [[0, 0, -100, -100]] * 2 + [[-100] * 4] * 2

"""Discriminators: shapes, refusals, and the handling that trainers need."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.models.discriminators import (
    ImageDiscriminator,
    PatchDiscriminator,
    SemanticFusionBlock,
    UNetDiscriminator,
)
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d

NETWORKS = [PatchDiscriminator, UNetDiscriminator, ImageDiscriminator]
LOGITS = {
    PatchDiscriminator: (2, 1, 10, 6),
    UNetDiscriminator: (2, 1, 96, 64),
    ImageDiscriminator: (2, 1),
}


def build(network: type[nn.Module], semantic_channels: int | None = 64) -> nn.Module:
    torch.manual_seed(0)
    return network(8, semantic_channels=semantic_channels)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("semantic_channels", [None, 64])
def test_logits_of_any_multiple_of_16_have_the_documented_shape(network, semantic_channels):
    semantics = None if semantic_channels is None else torch.rand(2, 64, 6, 4)
    logits = build(network, semantic_channels)(torch.rand(2, 3, 96, 64), semantics)
    assert logits.shape == LOGITS[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient_once_the_zero_projection_has_moved(network):
    discriminator = build(network)
    for module in discriminator.modules():
        if isinstance(module, SemanticFusionBlock):
            nn.init.normal_(module.project_out.weight)
    discriminator(torch.rand(2, 3, 64, 64), torch.rand(2, 64, 4, 4)).square().sum().backward()
    idle = [name for name, parameter in discriminator.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize(
    ("image", "semantics", "text"),
    [
        ((2, 3, 40, 32), (2, 64, 2, 2), "multiples of 16 px; got 40x32; crop or pad it, for example to 32x32"),
        ((2, 3, 32, 32), (2, 64, 4, 4), "grid 2x2 for an image of 32x32 .*got 4x4"),
        ((2, 3, 32, 32), (2, 32, 2, 2), r"shape \(n, 64, h / 16, w / 16\); got \(2, 32, 2, 2\)"),
        ((2, 3, 32, 32), (1, 64, 2, 2), "one batch size; got 2 and 1"),
        ((2, 1, 32, 32), (2, 64, 2, 2), r"\(n, 3, h, w\); got \(2, 1, 32, 32\)"),
        ((3, 32, 32), (2, 64, 2, 2), r"got \(3, 32, 32\)"),
        ((2, 3, 32, 32), None, "takes 64-channel semantics; got none"),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_input_that_does_not_fit_is_refused_with_both_sides_named(network, image, semantics, text):
    given = None if semantics is None else torch.rand(semantics)
    with pytest.raises(ValueError, match=text):
        build(network)(torch.rand(image), given)


OPTIONS = [
    {"fusion": "concatenation"},
    {"fusion": "modulation"},
    {"residual": True},
    {"fusion": "concatenation", "residual": True},
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("options", OPTIONS)
def test_ablation_trains_every_parameter(network, options):
    torch.manual_seed(0)
    discriminator = network(8, semantic_channels=64, **options)
    for module in discriminator.modules():
        if isinstance(module, SemanticFusionBlock):
            nn.init.normal_(module.project_out.weight)
    image, semantics = torch.rand(2, 3, 64, 48), torch.rand(2, 64, 4, 3)
    discriminator.eval()
    logits = discriminator(image, semantics)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters())


def test_encoder_placement_has_the_same_weights_and_other_logits():
    decoder, encoder = build(UNetDiscriminator), UNetDiscriminator(8, semantic_channels=64, placement="encoder")
    encoder.load_state_dict(decoder.state_dict())
    image, semantics = torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2)
    one, other = decoder.eval()(image, semantics), encoder.eval()(image, semantics)
    assert one.shape == other.shape
    assert not torch.allclose(one, other)


def test_skip_connections_let_semantics_through_without_the_image():
    torch.manual_seed(0)
    image = torch.rand(1, 8, 8, 8)
    for residual in (False, True):
        block = SemanticFusionBlock(64, 8, 4, residual=residual)
        nn.init.normal_(block.project_out.weight)
        nn.init.zeros_(block.cross_attention.to_out.weight)
        one, other = (block(torch.rand(1, 64, 2, 2), image) for _ in range(2))
        assert torch.equal(one, other) != residual


def test_ablation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="got 'addition'"):
        PatchDiscriminator(8, semantic_channels=64, fusion="addition")
    with pytest.raises(ValueError, match="got 'bottom'"):
        UNetDiscriminator(8, semantic_channels=64, placement="bottom")


def test_semantics_for_a_plain_network_are_refused():
    with pytest.raises(ValueError, match="takes no semantics"):
        build(UNetDiscriminator, None)(torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2))


def test_crop_too_small_for_patches_is_refused():
    with pytest.raises(ValueError, match="at least 32 px; got 16x32"):
        build(PatchDiscriminator)(torch.rand(1, 3, 16, 32), torch.rand(1, 64, 1, 2))


def test_batches_of_two_shapes_in_one_call_are_refused():
    images = (torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 48))
    with pytest.raises(ValueError, match="one shape"):
        build(UNetDiscriminator)(images, torch.rand(1, 64, 2, 2))


def test_semantic_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 32 and of upscale squared"):
        UNetDiscriminator(8, semantic_channels=96)


@pytest.mark.parametrize("network", NETWORKS)
def test_copy_after_a_training_pass_gives_the_same_logits(network):
    discriminator = build(network)
    image, semantics = torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2)
    discriminator(image, semantics).sum().backward()
    twin = copy.deepcopy(discriminator)
    assert torch.equal(discriminator.eval()(image, semantics), twin.eval()(image, semantics))


@pytest.mark.parametrize("network", NETWORKS)
def test_network_on_the_meta_device_has_the_same_state(network):
    with torch.device("meta"):
        hollow = network(8, semantic_channels=64)
    real = build(network)
    assert {name: t.shape for name, t in hollow.state_dict().items()} == {
        name: t.shape for name, t in real.state_dict().items()
    }
    assert hollow(torch.rand(1, 3, 32, 32, device="meta"), torch.rand(1, 64, 2, 2, device="meta")).is_meta


@pytest.mark.parametrize("network", NETWORKS)
def test_channels_last_changes_nothing_but_the_layout(network):
    discriminator = build(network).eval()
    image, semantics = torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2)
    wanted = discriminator(image, semantics)
    got = discriminator.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last), semantics)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_network_is_one_graph_for_the_compiler(network):
    discriminator = build(network)
    compiled = torch.compile(copy.deepcopy(discriminator), backend="eager", fullgraph=True)
    images, semantics = (torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)), torch.rand(1, 64, 2, 2)
    for got, wanted in zip(compiled(images, semantics), discriminator(images, semantics), strict=True):
        torch.testing.assert_close(got, wanted)


def test_bf16_autocast_keeps_the_spectral_estimate_in_float32():
    convolution = SpectralNormConv2d(4, 8, 3, bias=True)
    plain = copy.deepcopy(convolution)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = convolution.normalised_weight()
    assert weight.dtype == torch.float32
    assert torch.equal(weight, plain.normalised_weight())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_spectral_norm_over_training_steps_equals_torchs_own(memory_format):
    torch.manual_seed(0)
    ours = SpectralNormConv2d(5, 4, 3, bias=True).double()
    theirs = nn.utils.spectral_norm(nn.Conv2d(5, 4, 3, padding=1).double())
    theirs.load_state_dict(
        {("weight_orig" if name == "weight" else name): tensor for name, tensor in ours.state_dict().items()}
    )
    ours.to(memory_format=memory_format)
    image = torch.rand(1, 5, 6, 7, dtype=torch.float64).contiguous(memory_format=memory_format)
    for _ in range(3):
        outputs = [network(image) for network in (ours, theirs)]
        torch.testing.assert_close(*outputs)
        pairs = zip((ours.weight, theirs.weight_orig), outputs, strict=True)
        gradients = [torch.autograd.grad(out.square().sum(), weight)[0] for weight, out in pairs]
        torch.testing.assert_close(*gradients)


def test_spectral_norm_converges_to_the_largest_singular_value():
    torch.manual_seed(0)
    convolution = SpectralNormConv2d(4, 8, 3, bias=False)
    for _ in range(200):
        weight = convolution.normalised_weight()
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-5)


def test_spectral_estimate_rests_in_evaluation_mode():
    convolution = SpectralNormConv2d(4, 8, 3, bias=False).eval()
    before = convolution.weight_u.clone()
    convolution(torch.rand(1, 4, 8, 8))
    assert torch.equal(convolution.weight_u, before)


def test_gradients_of_two_passes_do_not_mix_up_their_estimates():
    torch.manual_seed(0)
    convolution = SpectralNormConv2d(2, 3, 3, bias=False).double()
    images = [torch.rand(1, 2, 5, 5, dtype=torch.float64) for _ in range(2)]
    start = {name: tensor.clone() for name, tensor in convolution.state_dict().items()}
    loss = sum(convolution(image).square().sum() for image in images)
    (together,) = torch.autograd.grad(loss, convolution.weight)
    convolution.load_state_dict(start)
    apart = sum(torch.autograd.grad(convolution(i).square().sum(), convolution.weight)[0] for i in images)
    torch.testing.assert_close(together, apart)

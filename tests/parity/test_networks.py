"""Networks, perceptual loss and three training steps against the reference's own outputs."""

from __future__ import annotations

import plain_networks
import pytest
import torch
import torch.nn.functional as F
from golden_fill import draw_image, draw_semantics, fill, golden_outputs, relative_error
from torch import Tensor, nn

from pipeline.losses import PerceptualLoss, VanillaLoss
from pipeline.models.discriminators import (
    ImageDiscriminator,
    PatchDiscriminator,
    UNetDiscriminator,
    load_discriminator_weights,
)
from pipeline.models.discriminators.sed_layout import to_sed
from pipeline.models.generators import RRDBNet, SwinIR, load_generator_weights

# Both sides are float32 and add in another order: a few units in the last place of the largest value.
TOLERANCE = 1e-5


def small_rrdb() -> RRDBNet:
    return RRDBNet(num_features=16, num_blocks=2, growth_channels=8, scale=4)


def small_swinir() -> SwinIR:
    return SwinIR(4, embed_dim=24, depths=[2, 2], num_heads=[2, 2], window_px=8, training_size_px=16)


@pytest.mark.parametrize(
    ("name", "build"), [("rrdb_nf16_nb2_gc8", small_rrdb), ("swinir_e24_d22_h22_w8", small_swinir)]
)
def test_generator_with_golden_weights_gives_golden_output(name, build):
    generator = build().eval()
    load_generator_weights(generator, fill(name))
    with torch.no_grad():
        sr = generator(draw_image((1, 3, 24, 20), 1000))
    assert relative_error(sr, golden_outputs()[name]) < TOLERANCE


@pytest.mark.parametrize(("name", "network"), [("sed_p", PatchDiscriminator), ("sed_u", UNetDiscriminator)])
def test_discriminator_with_golden_weights_gives_golden_logits(name, network):
    discriminator = network(64, semantic_channels=1024).eval()
    load_discriminator_weights(discriminator, fill(name))
    image, semantics = draw_image((2, 3, 256, 256), 2000), draw_semantics((2, 1024, 16, 16), 3000)
    with torch.no_grad():
        logits = discriminator(image, semantics)
    assert relative_error(logits, golden_outputs()[f"{name}_256"]) < TOLERANCE


@pytest.mark.parametrize(
    ("network", "semantic_channels", "num_parameters"),
    [
        (PatchDiscriminator, 1024, 10_090_433),
        (UNetDiscriminator, 1024, 10_158_417),
        (PatchDiscriminator, None, 2_764_737),
        (UNetDiscriminator, None, 4_376_897),
    ],
)
def test_discriminator_parameters_are_counted_as_in_the_paper(network, semantic_channels, num_parameters):
    with torch.device("meta"):
        discriminator = network(64, semantic_channels=semantic_channels)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == num_parameters


def test_rrdb_of_the_paper_has_16697987_parameters():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in RRDBNet().parameters()) == 16_697_987


def golden_perceptual() -> PerceptualLoss:
    perceptual = PerceptualLoss(weights="random")
    perceptual.features.load_state_dict(fill("vgg19_features_to_34"))
    return perceptual


def test_perceptual_loss_gives_golden_value():
    loss = 0.1 * golden_perceptual()(draw_image((1, 3, 64, 64), 4000), draw_image((1, 3, 64, 64), 5000))
    assert loss.item() == pytest.approx(golden_outputs()["perceptual_x0.1"].item(), rel=TOLERANCE)


def test_three_training_steps_follow_the_reference():
    generator, discriminator = small_rrdb(), PatchDiscriminator(64, semantic_channels=1024)
    load_generator_weights(generator, fill("rrdb_nf16_nb2_gc8"))
    load_discriminator_weights(discriminator, fill("sed_p"))
    perceptual = golden_perceptual()
    optimizers = [torch.optim.Adam(net.parameters(), 1e-4, (0.9, 0.99)) for net in (generator, discriminator)]
    for step in range(3):
        wanted = golden_outputs()["train_P"][step]
        got = train_step(step, generator, discriminator, perceptual, optimizers)
        # The reference iterates its spectral norms once more a step, so later steps may drift apart a little. The last
        # value, the loss on fake images, is near 0 by then (0.006), and CPUs differ in it by 7e-6.
        assert got == pytest.approx(wanted.tolist(), rel=1e-4 if step == 0 else 1e-3, abs=1e-12 if step == 0 else 2e-5)
    wanted_weight = golden_outputs()["train_P_conv_last.weight"]
    assert relative_error(generator.conv_last.weight.detach(), wanted_weight) < 1e-3


def train_step(step: int, generator: nn.Module, discriminator: nn.Module, perceptual, optimizers) -> list[float]:
    lq, hr = draw_image((2, 3, 32, 32), 6000 + step), draw_image((2, 3, 128, 128), 7000 + step)
    semantics = draw_semantics((2, 1024, 8, 8), 8000 + step)
    adversarial = VanillaLoss()
    discriminator.requires_grad_(False)
    sr = generator(lq)
    pixel, features = F.l1_loss(sr, hr), 0.1 * perceptual(sr, hr)
    fools = 0.01 * adversarial.generator(discriminator(sr, semantics))
    optimizers[0].zero_grad()
    (pixel + features + fools).backward()
    optimizers[0].step()
    discriminator.requires_grad_(True)
    optimizers[1].zero_grad()
    real, fake = adversarial.discriminator(*discriminator((hr, sr.detach()), semantics))
    (real + fake).backward()
    optimizers[1].step()
    return [term.item() for term in (pixel, features, fools, real, fake)]


def random_case(
    network: type[nn.Module], size_px: tuple[int, int], semantic_channels: int | None = 1024
) -> tuple[nn.Module, Tensor, Tensor | None]:
    torch.manual_seed(0)
    discriminator = network(64, semantic_channels=semantic_channels)
    image = torch.rand(2, 3, *size_px)
    if semantic_channels is None:
        return discriminator, image, None
    for block in (discriminator.fusion1, discriminator.fusion2, discriminator.fusion3):
        nn.init.normal_(block.project_out.weight, std=0.2)
        nn.init.normal_(block.project_out.bias, std=0.2)
    return discriminator, image, torch.rand(2, semantic_channels, size_px[0] // 16, size_px[1] // 16)


PLAIN = {PatchDiscriminator: plain_networks.patch, UNetDiscriminator: plain_networks.unet}


@pytest.mark.parametrize("network", PLAIN)
@pytest.mark.parametrize("semantic_channels", [None, 1024])
@pytest.mark.parametrize("size_px", [(32, 48), (96, 64), (112, 80)])
def test_discriminator_at_other_sizes_follows_the_reference_layer_by_layer(network, semantic_channels, size_px):
    discriminator, image, semantics = random_case(network, size_px, semantic_channels)
    with torch.no_grad():
        logits = discriminator.eval()(image, semantics)
        wanted = PLAIN[network](to_sed(discriminator.state_dict()), image, semantics)
    assert logits.shape == wanted.shape
    assert relative_error(logits, wanted) < TOLERANCE


@pytest.mark.parametrize("network", PLAIN)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_discriminator_gradients_in_float64_are_the_references(network, memory_format):
    discriminator, image, semantics = random_case(network, (64, 48), 1024)
    discriminator = discriminator.double().to(memory_format=memory_format).eval()
    image, semantics = image.double().contiguous(memory_format=memory_format), semantics.double()
    image.requires_grad_()
    state = to_sed(discriminator.state_dict())
    # The state's tensors are detached, so the plain network gets the parameters themselves.
    ours_by_pointer = {parameter.data_ptr(): parameter for parameter in discriminator.parameters()}
    state = {name: ours_by_pointer.get(tensor.data_ptr(), tensor) for name, tensor in state.items()}
    wanted_of = [image, *discriminator.parameters()]
    got = torch.autograd.grad(loss_of(discriminator(image, semantics)), wanted_of)
    wanted = torch.autograd.grad(loss_of(PLAIN[network](state, image, semantics)), wanted_of)
    largest = max(gradient.abs().max() for gradient in wanted[1:])
    for one, other in zip(got, wanted, strict=True):
        scale = other.abs().max() if one is got[0] else largest
        assert (one - other).abs().max() <= 1e-12 * scale


def loss_of(logits: Tensor) -> Tensor:
    return (F.softplus(logits) * torch.linspace(0.5, 1.5, logits.numel(), dtype=logits.dtype).view_as(logits)).mean()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size_px", [(6, 10), (14, 4)])
def test_rrdb_at_every_scale_follows_the_plain_network(scale, size_px):
    torch.manual_seed(0)
    generator = RRDBNet(num_features=16, num_blocks=2, growth_channels=8, scale=scale).eval()
    lq = torch.rand(2, 3, *size_px)
    with torch.no_grad():
        wanted = plain_networks.rrdb(plain_networks.to_kair(generator.state_dict()), lq, scale, num_blocks=2)
        assert relative_error(generator(lq), wanted) < TOLERANCE


@pytest.mark.parametrize("size_px", [(48, 80), (33, 50)])
def test_perceptual_loss_at_other_sizes_equals_torchvisions_network(size_px):
    from torchvision.models.vgg import cfgs, make_layers

    perceptual = PerceptualLoss(weights="random", seed=3)
    layers = make_layers(cfgs["E"])
    layers.load_state_dict(perceptual.features.state_dict(), strict=False)
    sr, gt = torch.rand(2, 2, 3, *size_px)
    wanted = 0.0
    one, other = ((image - perceptual.mean) / perceptual.std for image in (sr, gt))
    for index, layer in enumerate(layers[:35]):
        # The next layer is a ReLU that would work in place.
        one, other = layer(one.clone()), layer(other.clone())
        wanted += {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}.get(index, 0.0) * F.l1_loss(one, other).item()
    assert perceptual(sr, gt).item() == pytest.approx(wanted, rel=TOLERANCE)


@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator, ImageDiscriminator])
def test_two_batches_in_one_call_equal_two_calls_in_training(network):
    discriminator, real, semantics = random_case(network, (32, 32))
    fake = real.flip(0)
    start = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    separate = [discriminator(real, semantics), discriminator(fake, semantics)]
    vectors = discriminator.conv1.weight_u.clone()
    discriminator.load_state_dict(start)
    together = discriminator((real, fake), semantics)
    assert all(torch.equal(one, other) for one, other in zip(separate, together, strict=True))
    assert torch.equal(vectors, discriminator.conv1.weight_u)

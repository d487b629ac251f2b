"""Losses against a few lines of NumPy each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.errors import CheckpointError, ConfigError
from pipeline.losses import (
    ADVERSARIAL_LOSSES,
    PERCEPTUAL_LOSSES,
    CharbonnierLoss,
    EfficientNetPerceptualLoss,
    L1Loss,
    LocallyDiscriminativeLoss,
    PerceptualLoss,
)
from pipeline.pretrained.efficientnet import load_efficientnet
from shards.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.randn(2, 1, 5, 4, generator=GENERATOR)
FAKE = torch.randn(2, 1, 5, 4, generator=GENERATOR) - 1
R, F_ = REAL.double().numpy(), FAKE.double().numpy()


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


EXPECTED = {
    "vanilla": (-log_sigmoid(F_).mean(), -log_sigmoid(R).mean(), -log_sigmoid(-F_).mean()),
    "least_squares": (((F_ - 1) ** 2).mean(), ((R - 1) ** 2).mean(), (F_**2).mean()),
    "hinge": (-F_.mean(), np.maximum(0, 1 - R).mean(), np.maximum(0, 1 + F_).mean()),
    "relativistic_average": (
        -log_sigmoid(F_ - R.mean()).mean() - log_sigmoid(-(R - F_.mean())).mean(),
        -log_sigmoid(R - F_.mean()).mean(),
        -log_sigmoid(-(F_ - R.mean())).mean(),
    ),
    "relativistic_pairwise": (
        -log_sigmoid(F_ - R).mean(),
        -log_sigmoid(R - F_).mean() / 2,
        -log_sigmoid(R - F_).mean() / 2,
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_adversarial_loss_equals_its_equation_on_both_sides(name):
    loss = ADVERSARIAL_LOSSES[name]
    got = (loss.generator(FAKE, REAL), *loss.discriminator(REAL, FAKE))
    assert [term.item() for term in got] == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_generator_that_follows_its_gradient_looks_more_real(name):
    # Below 1, the least squares' target.
    fake = FAKE.clamp(max=0.9).requires_grad_()
    ADVERSARIAL_LOSSES[name].generator(fake, REAL).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", ["relativistic_average", "relativistic_pairwise"])
def test_relativistic_loss_without_real_logits_is_refused(name):
    with pytest.raises(ValueError, match="pass real_logits"):
        ADVERSARIAL_LOSSES[name].generator(FAKE)


def test_adversarial_loss_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no adversarial loss is named 'wgan'; known: vanilla"):
        ADVERSARIAL_LOSSES["wgan"]


def test_vanilla_loss_of_extreme_logits_is_finite():
    real, fake = ADVERSARIAL_LOSSES["vanilla"].discriminator(REAL * 1e4, FAKE * 1e4)
    assert real.isfinite()
    assert fake.isfinite()


def image(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 18, generator=torch.Generator().manual_seed(seed))


def test_pixel_losses_equal_their_equations():
    difference = (image(0) - image(1)).double().numpy()
    assert L1Loss()(image(0), image(1)).item() == pytest.approx(np.abs(difference).mean(), rel=1e-6)
    wanted = np.sqrt(difference**2 + 0.01**2).mean()
    assert CharbonnierLoss(0.01)(image(0), image(1)).item() == pytest.approx(wanted, rel=1e-6)


def test_charbonnier_gradient_of_equal_images_is_zero_not_nan():
    sr = image(0).requires_grad_()
    CharbonnierLoss()(sr, image(0)).backward()
    assert (sr.grad == 0).all()


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss()])
def test_pair_that_would_broadcast_is_refused(loss):
    with pytest.raises(ValueError, match=r"one shape; got \(2, 3, 16, 18\) and \(2, 1, 16, 18\)"):
        loss(image(0), image(1)[:, :1])


def ldl_pixel_by_pixel(sr: np.ndarray, gt: np.ndarray, average_sr: np.ndarray) -> float:
    """LDL as its authors define it, one pixel after another, in float64."""
    total = 0.0
    for one, truth, average in zip(sr, gt, average_sr, strict=True):
        residual, allowed = np.abs(truth - one).sum(0), np.abs(truth - average).sum(0)
        whole = residual.var(ddof=1) ** (1 / 5)
        padded = np.pad(residual, 3, mode="reflect")
        for y, x in np.ndindex(*residual.shape):
            if residual[y, x] >= allowed[y, x]:
                weight = whole * padded[y : y + 7, x : x + 7].var(ddof=1)
                total += np.abs(weight * one[:, y, x] - weight * truth[:, y, x]).sum()
    return total / sr.size


def test_ldl_equals_its_definition_pixel_by_pixel():
    sr, gt, average_sr = image(0).double(), image(1).double(), image(2).double()
    wanted = ldl_pixel_by_pixel(sr.numpy(), gt.numpy(), average_sr.numpy())
    assert LocallyDiscriminativeLoss()(sr, gt, average_sr).item() == pytest.approx(wanted, rel=1e-12)


def test_ldl_gradient_equals_the_slope_of_its_definition():
    sr, gt, average_sr = image(0).double(), image(1).double(), image(2).double()
    sr.requires_grad_()
    LocallyDiscriminativeLoss()(sr, gt, average_sr).backward()
    for place in ((0, 0, 5, 7), (1, 2, 0, 17), (0, 1, 15, 0)):
        nudge = np.zeros(sr.shape)
        nudge[place] = 1e-6
        ends = (
            ldl_pixel_by_pixel(sr.detach().numpy() + way * nudge, gt.numpy(), average_sr.numpy()) for way in (1, -1)
        )
        assert sr.grad[place].item() == pytest.approx((next(ends) - next(ends)) / 2e-6, rel=1e-6, abs=1e-10)


def test_ldl_of_equal_images_is_zero_and_so_is_its_gradient():
    sr = image(0).requires_grad_()
    loss = LocallyDiscriminativeLoss()(sr, image(0), image(0))
    loss.backward()
    assert loss.item() == 0
    assert (sr.grad == 0).all()


def test_ldl_of_images_smaller_than_half_a_window_is_refused():
    with pytest.raises(ValueError, match="sides above 3 px; got 3x18"):
        LocallyDiscriminativeLoss()(image(0)[:, :, :3], image(1)[:, :, :3], image(2)[:, :, :3])


def test_ldl_is_zero_where_the_average_does_worse():
    assert LocallyDiscriminativeLoss()(image(0), image(0) + 0.1, image(0) - 5).item() == 0


@pytest.mark.parametrize("window_px", [1, 4])
def test_ldl_window_without_a_middle_is_refused(window_px):
    with pytest.raises(ValueError, match="odd and at least 3"):
        LocallyDiscriminativeLoss(window_px)


SMALL_LAYERS = {2: 0.5, 7: 1.0}


def test_perceptual_loss_trains_the_output_and_nothing_else():
    loss = PerceptualLoss(SMALL_LAYERS, weights="random")
    sr, gt = image(0).requires_grad_(), image(1).requires_grad_()
    loss.train()
    loss(sr, gt).backward()
    assert sr.grad.abs().sum() > 0
    assert gt.grad is None
    assert not loss.training
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_perceptual_loss_and_its_gradient_are_those_of_vgg19_written_out_to_the_bit():
    loss = PerceptualLoss({2: 0.1, 7: 0.5, 16: 1.0}, weights="random")
    convolutions = [layer for layer in loss.features if isinstance(layer, torch.nn.Conv2d)]
    groups = [convolutions[:2], convolutions[2:4], convolutions[4:8]]

    def written_out(sr: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        total, images = torch.zeros(()), [(image - loss.mean) / loss.std for image in (sr, gt)]
        for group, weight in zip(groups, (0.1, 0.5, 1.0), strict=True):
            for convolution in group[:-1]:
                images = [F.relu(convolution(image)) for image in images]
            images = [group[-1](image) for image in images]
            total = total + weight * F.l1_loss(images[0], images[1].detach())
            images = [F.max_pool2d(F.relu(image), 2) for image in images]
        return total

    # Equal in a part, where the gradient is zero.
    sr, gt = torch.rand(2, 2, 3, 33, 18, generator=torch.Generator().manual_seed(0))
    sr[..., :16, :] = gt[..., :16, :]
    sr.requires_grad_()
    got, wanted = loss(sr, gt), written_out(sr, gt)
    assert torch.equal(got, wanted)
    assert torch.equal(torch.autograd.grad(got, sr)[0], torch.autograd.grad(wanted, sr)[0])


def test_perceptual_distance_under_autocast_is_taken_in_float32():
    loss = PerceptualLoss({2: 1.0}, weights="random")
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(image(0), image(1))
    # Means of the same bfloat16 features; a mean in bfloat16 would be off by up to 2^-9.
    sr, gt = ((image(seed) - loss.mean) / loss.std for seed in (0, 1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = [loss.features(part) for part in (sr, gt)]
    assert features[0].dtype == torch.bfloat16
    wanted = (features[0].double() - features[1].double()).abs().mean().item()
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(wanted, rel=1e-6)


def test_perceptual_loss_of_equal_images_is_zero():
    assert PerceptualLoss(SMALL_LAYERS, weights="random")(image(0), image(0)).item() == 0


def test_random_perceptual_weights_depend_on_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (PerceptualLoss(SMALL_LAYERS, weights="random", seed=seed) for seed in (1, 1, 2))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert torch.equal(torch.get_rng_state(), before)


def test_perceptual_weights_from_a_file_equal_the_originals(tmp_path):
    loss = PerceptualLoss(SMALL_LAYERS, weights="random", seed=4)
    state = {f"features.{name}": tensor for name, tensor in loss.features.state_dict().items()}
    save_file(state | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg19.safetensors")
    loaded = PerceptualLoss(SMALL_LAYERS, weights=tmp_path / "vgg19.safetensors")
    assert loaded.weights_sha256 == loss.weights_sha256


def test_perceptual_weights_of_another_network_are_refused(tmp_path):
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of VGG19, 8 of 8"):
        PerceptualLoss(SMALL_LAYERS, weights=tmp_path / "vgg.safetensors")


def test_perceptual_weights_that_cannot_be_downloaded_name_the_ways_out(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(InputError, match=r"no route to host.*give the path.*random"):
        PerceptualLoss(SMALL_LAYERS)


def test_perceptual_layer_that_is_no_convolution_is_refused():
    with pytest.raises(ValueError, match="must name convolutions"):
        PerceptualLoss({3: 1.0}, weights="random")


def test_efficientnet_loss_is_the_weighted_distance_of_its_stages_and_trains_the_output_alone():
    loss = EfficientNetPerceptualLoss({1: 0.5, 3: 2.0})
    sr, gt = image(0).requires_grad_(), image(1).requires_grad_()
    network = load_efficientnet("efficientnet-lite0")
    ours, theirs = (network((part - 127 / 255) / (128 / 255)) for part in (sr, gt))
    wanted = 0.5 * (ours[0] - theirs[0]).abs().mean() + 2.0 * (ours[2] - theirs[2]).abs().mean()
    got = loss.train()(sr, gt)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)
    got.backward()
    assert sr.grad.abs().sum() > 0
    assert gt.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert loss(gt, gt).item() == 0


@pytest.mark.parametrize("name", PERCEPTUAL_LOSSES.names)
def test_perceptual_loss_when_registered_states_its_size(name):
    loss = PERCEPTUAL_LOSSES[name].build("random" if name == "vgg19" else "package", 0)
    assert sum(parameter.numel() for parameter in loss.parameters()) == PERCEPTUAL_LOSSES[name].num_parameters


def test_efficientnet_loss_with_other_weights_names_both_ways_out():
    with pytest.raises(ConfigError, match=r"'torchvision'.*-weights package, or --losses.perceptual vgg19"):
        PERCEPTUAL_LOSSES["efficientnet-lite0"].build("torchvision", 0)

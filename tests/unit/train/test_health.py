"""The health of a GAN: accuracy, the gradient of each term, warnings, and where an update that is not finite began."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gans import both, descending, gan_of, losses, report
from harness import changed, prepare_tiny_data
from sessions import lines_of, run_session
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.errors import NonFiniteError
from pipeline.losses import ADVERSARIAL_LOSSES, ImageTerm, L1Loss
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import SRVGGNetCompact
from pipeline.tracking import Trackers
from pipeline.train.gan_step import GanStep, Turn, gan_step, gan_step_shared_pass
from pipeline.train.health import GanHealth
from pipeline.train.micro_batches import StepInput
from pipeline.train.non_finite import first_bad_gradient, first_bad_output

CHANNELS = 64
REPORTED = dataclasses.replace(both(0.1), is_reported=True)


def step_input(num_images: int = 4) -> StepInput:
    torch.manual_seed(7)
    gt = torch.rand(num_images, 3, 32, 32)
    return StepInput(torch.rand(num_images, 3, 8, 8), gt, gt * 0.5, torch.randn(num_images, CHANNELS, 2, 2))


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return SRVGGNetCompact(4, 1, 4), PatchDiscriminator(8, CHANNELS)


@pytest.mark.parametrize(
    ("name", "real", "fake", "accuracy"),
    [
        ("vanilla", [1.0, -1.0, 2.0, 3.0], [-1.0, 1.0, -2.0, 3.0], (0.75, 0.5)),
        ("hinge", [0.1, 0.1], [0.1, -0.1], (1.0, 0.5)),
        ("least_squares", [0.4, 0.6], [0.4, 0.3], (0.5, 1.0)),
        ("relativistic_average", [5.0, 9.0], [4.0, 8.0], (0.5, 0.5)),  # real against 6, fake against 7
    ],
)
def test_accuracy_is_the_fraction_on_the_right_side(
    name: str, real: list[float], fake: list[float], accuracy: tuple[float, float]
) -> None:
    assert ADVERSARIAL_LOSSES[name].accuracy(torch.tensor(real), torch.tensor(fake)) == accuracy


class Constant(nn.Module):
    """A generator whose output is its weight."""

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.sr = nn.Parameter(torch.full((num_images, 3, 8, 8), 0.5))

    def forward(self, lq: Tensor) -> Tensor:
        return self.sr[: len(lq)]


class Mean(nn.Module):
    """A discriminator whose logit is twice the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Any, semantics: Tensor) -> Any:
        if isinstance(image, tuple):
            return tuple(self.forward(one, semantics) for one in image)
        return self.weight * image.mean((1, 2, 3))


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("step", [gan_step, gan_step_shared_pass])
def test_gradient_of_each_term_is_its_closed_form_however_a_batch_is_cut(step: GanStep, size: int) -> None:
    gt = torch.zeros(4, 3, 8, 8)
    batch = StepInput(torch.zeros(4, 3, 2, 2), gt, gt, torch.zeros(4, 1, 1, 1))
    gan = gan_of(Constant(4), Mean(), losses(3.0, adversarial_weight=0.5), micro_batch_size=size)
    found = report(step(gan, batch, REPORTED))
    # Each of 192 values has the gradient 3/192 of 3 * |sr - 0|, and 0.5 * -sigmoid(-2 * 0.5) * 2/192 of the other.
    pixel = 3 / 192**0.5
    adversarial = 1 / (1 + torch.tensor(1.0).exp().item()) / 192**0.5
    assert found["gradient/pixel"].item() == pytest.approx(pixel, rel=1e-5)
    assert found["gradient/adversarial"].item() == pytest.approx(adversarial, rel=1e-5)
    assert found["gradient_share/adversarial"].item() == pytest.approx(adversarial / (pixel + adversarial), rel=1e-5)
    assert found["gradient_share/pixel"] + found["gradient_share/adversarial"] == pytest.approx(1.0)


@pytest.mark.parametrize("step", [gan_step, gan_step_shared_pass])
def test_reported_step_trains_like_any_other_to_the_bit(step: GanStep) -> None:
    generator, discriminator = networks()
    ends = []
    for turn in (both(0.1), REPORTED):
        pair = copy.deepcopy(generator), copy.deepcopy(discriminator)
        terms = losses(1.0, ImageTerm("perceptual", 0.5, L1Loss()), adversarial_weight=0.1)
        scalars = report(step(gan_of(*pair, terms, micro_batch_size=3), step_input(), turn))
        ends.append(([tensor for net in pair for tensor in net.state_dict().values()], scalars))
    (plain, scalars), (reported, more) = ends
    assert all(torch.equal(one, other) for one, other in zip(plain, reported, strict=True))
    assert all(torch.equal(more[name], value) for name, value in scalars.items())
    gradients = {
        f"{kind}/{term}" for kind in ("gradient", "gradient_share") for term in ("pixel", "perceptual", "adversarial")
    }
    assert more.keys() - scalars.keys() == gradients


def test_gradient_of_a_scaled_loss_is_that_of_the_loss() -> None:
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    loss = image.square().mean()
    for scaler in (None, GradScaler("cpu", init_scale=1024.0)):
        gradient = descending(nn.Linear(1, 1), scaler=scaler).gradient_at(image, loss)
        torch.testing.assert_close(gradient, 2 * image.detach() / image.numel())


def values(real: float, fake: float, share: float = 0.2) -> dict[str, float]:
    return {
        "discriminator/accuracy_real": real,
        "discriminator/accuracy_fake": fake,
        "gradient_share/adversarial": share,
    }


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (values(1.0, 0.0), ("at chance", "0.500", "discriminator_warmup_images")),
        (values(0.99, 0.98), ("saturated", "0.985", "Lower schedule.discriminator_learning_rate", "max_accuracy")),
        (
            values(0.95, 0.97) | {"discriminator/rest_share": 0.95},
            ("rested in 95% of the steps", "schedule.discriminator_max_accuracy", "Raise losses.adversarial_weight"),
        ),
        (values(0.7, 0.8, 0.004), ("0.40% of the generator's gradient", "Raise losses.adversarial_weight")),
    ],
)
def test_imbalance_that_lasts_is_warned_of_once_until_it_returns(
    report: dict[str, float], words: tuple[str, ...]
) -> None:
    health = GanHealth(100)
    assert health.add(50, values(0.7, 0.8)) == []
    assert health.add(100, report) == []
    assert health.add(120, {"Set5/psnr_y": 27.0}) == []  # a validation says nothing about it
    (warning,) = health.add(150, report)
    assert all(word in warning for word in words)
    assert health.add(200, report) == []
    assert health.add(250, values(0.7, 0.8) | {"discriminator/rest_share": 0.5}) == []
    assert health.add(300, report) == []
    assert len(health.add(350, report)) == 1
    silent = GanHealth(0)
    assert [silent.add(seen, report) for seen in (100, 1000)] == [[], []]


def test_first_layer_with_a_bad_output_is_named_and_nothing_is_changed() -> None:
    generator, discriminator = networks()
    gan, batch = gan_of(generator, discriminator, losses()), step_input()
    before = copy.deepcopy(discriminator.state_dict())
    assert first_bad_output(gan, batch, both(0.1)) is None
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    spoiled = dataclasses.replace(batch, target=batch.target * torch.nan)
    assert first_bad_output(gan, spoiled, both(0.1)) == "the step's input `target`"
    with torch.no_grad():
        discriminator.conv1.bias.fill_(torch.inf) if discriminator.conv1.bias is not None else None
        discriminator.conv_last.bias.fill_(torch.inf)
    assert "of the discriminator's `" in str(first_bad_output(gan, batch, both(0.1)))
    assert first_bad_output(gan, batch, Turn(0.1, None)) is None
    last = [name for name, module in generator.named_modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        generator.get_submodule(last).bias.fill_(torch.nan)
    assert first_bad_output(gan, batch, both(0.1)) == f"the output of the generator's `{last}`"
    assert not any(module._forward_hooks for module in generator.modules())


def test_layer_whose_gradient_is_bad_first_is_the_last_of_the_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    trained = descending(network)
    middle = network[1](network[0](torch.ones(1, 2)))
    middle.register_hook(lambda gradient: gradient * torch.inf)
    trained.backward(network[2](middle).sum())
    assert trained.step(0.1) == 1
    assert first_bad_gradient(trained.gradient_norms) == "1.bias"


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("health"))


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


def test_run_reports_accuracy_and_gradients_and_warns(
    preset: Preset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses = dataclasses.replace(preset.train.losses, adversarial_weight=1e-9)
    report = dataclasses.replace(preset.train.report, warn_after_images=12)
    run_session(changed(preset, losses=losses, report=report), tmp_path / "run", stop_at=16)
    assert "generator's gradient" not in caplog.text
    run_session(changed(preset, losses=losses, report=report), tmp_path / "run")  # the count goes over the stop
    assert caplog.text.count("of the generator's gradient (over the last 12 images)") == 1
    adversarial = [line for line in lines_of(tmp_path / "run") if "discriminator/accuracy_real" in line]
    assert len(adversarial) == 4
    for line in adversarial:
        assert 0 <= line["discriminator/accuracy_fake"] <= 1
        assert line["gradient_share/pixel"] + line["gradient_share/adversarial"] == pytest.approx(1)


class Overflowing(nn.Module):
    """A perceptual-like loss that overflows."""

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        return (sr - gt).abs().mean() * torch.inf


@pytest.mark.parametrize("where", ["term", "layer"])
def test_run_that_is_stuck_names_the_term_and_the_layer(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    schedule = dataclasses.replace(preset.train.schedule, max_skipped_updates=2)
    if where == "term":
        monkeypatch.setattr("pipeline.losses.pixel.L1Loss.forward", Overflowing.forward)
        message = r"began in generator/pixel \(rank 0\)"
    else:
        from pipeline.run import session

        real: Callable[..., Any] = session.build_gan

        def broken(*args: Any) -> Any:
            gan, step = real(*args)
            layer = [module for module in gan.generator.bare.modules() if isinstance(module, nn.Conv2d)][1]
            layer.register_forward_hook(lambda module, inputs, output: output * torch.nan)
            return gan, step

        monkeypatch.setattr(session, "build_gan", broken)
        message = r"generator/pixel; the first NaN or infinite value is the output of the generator's `"
    with pytest.raises(NonFiniteError, match=message):
        run_session(changed(preset, schedule=schedule), tmp_path / "run")

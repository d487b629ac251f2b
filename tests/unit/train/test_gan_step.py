"""Each update changes its own network and nothing else; the terms are checked against the losses themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gans import both, descending, gan_of, losses, report
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses import ADVERSARIAL_LOSSES, GradientPenalty, ImageTerm, L1Loss, LocallyDiscriminativeLoss
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import SRVGGNetCompact
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import Adversary, Turn, gan_step
from pipeline.train.micro_batches import StepInput
from pipeline.train.report import RunningMeans

CHANNELS = 32
GENERATOR_ONLY = Turn(1e-2, 0.0)
"""Adversarial, with a discriminator that stays as it is."""


def step_input() -> StepInput:
    gt = torch.rand(2, 3, 32, 32)
    return StepInput(torch.rand(2, 3, 8, 8), gt, gt * 0.5, torch.randn(2, CHANNELS, 2, 2))


@pytest.fixture
def generator() -> SRVGGNetCompact:
    return SRVGGNetCompact(4, 1, 4)


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    return PatchDiscriminator(16, CHANNELS)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize("adversarial", ["vanilla", "relativistic_average"])
def test_generator_update_leaves_the_discriminator_untouched(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator, adversarial: str
) -> None:
    own, other = weights(generator), weights(discriminator)
    gan = gan_of(generator, discriminator, losses(adversarial=adversarial))
    result = gan_step(gan, step_input(), GENERATOR_ONLY)
    assert changed(generator, own) == own.keys()
    assert changed(discriminator, other) == set()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    assert {"generator/pixel", "generator/adversarial"} <= result.scalars.keys()
    assert not any(value.requires_grad for value in report(result).values())


def test_step_that_fails_leaves_the_discriminator_trainable(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    step = step_input()
    step = StepInput(step.lq, step.gt, step.target, step.semantics[:, :1])
    with pytest.raises(ValueError, match="semantics"):
        gan_step(gan_of(generator, discriminator, losses()), step, both(1e-2))
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


class Recorder(nn.Module):
    """A discriminator whose logit is the mean of its image times a weight, and that remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor | tuple[Tensor, Tensor], semantics: Tensor) -> Any:
        if isinstance(image, tuple):
            return tuple(self.weight * one.mean((1, 2, 3)) for one in image)
        self.seen.append(image)
        return self.weight * image.mean((1, 2, 3))


def test_generator_update_with_a_relativistic_loss_compares_with_hr(generator: SRVGGNetCompact) -> None:
    discriminator, step = Recorder(), step_input()
    with torch.no_grad():
        fake = generator(step.lq).mean((1, 2, 3))
    gan = gan_of(generator, discriminator, losses(adversarial="relativistic_average"))
    result = gan_step(gan, step, Turn(0.0, 0.0))
    expected = ADVERSARIAL_LOSSES["relativistic_average"].generator(fake, step.gt.mean((1, 2, 3)))
    assert torch.allclose(result.scalars["generator/adversarial"], expected)
    assert len(discriminator.seen) == 2
    assert torch.equal(discriminator.seen[1], step.gt)


def test_generator_update_runs_the_discriminator_once_when_the_loss_needs_no_hr(generator: SRVGGNetCompact) -> None:
    discriminator = Recorder()
    gan_step(gan_of(generator, discriminator, losses()), step_input(), both(0.0))
    assert len(discriminator.seen) == 1


class ForbidWaiting(TorchDispatchMode):
    """Fails where a host would wait for its device: at a number read from it, or a size that depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("adversarial", ["vanilla", "relativistic_average"])
def test_step_reads_no_number_from_the_device(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator, adversarial: str
) -> None:
    gan = gan_of(generator, discriminator, losses(adversarial=adversarial), clip_norm=1.0)
    average, means, step = MovingAverage(generator), RunningMeans(), step_input()
    with ForbidWaiting():
        means.add(gan_step(gan, step, replace(both(1e-2), is_reported=True)).scalars)
        average.update(0.9)
        with pytest.raises(AssertionError):
            float(step.lq.mean())  # what this test would find


class SquaredError(nn.Module):
    def forward(self, sr: Tensor, target: Tensor) -> Tensor:
        return (sr - target).square().mean()


def perceptual(weight: float) -> ImageTerm:
    return ImageTerm("perceptual", weight, SquaredError())


def test_generator_update_descends_the_weighted_sum_against_the_target(generator: SRVGGNetCompact) -> None:
    step, parameters = step_input(), list(generator.parameters())
    sr = generator(step.lq)
    total = 2.0 * L1Loss()(sr, step.target) + 0.25 * SquaredError()(sr, step.target) + 0.5 * -sr.mean()
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True)]
    gan = gan_of(generator, Recorder(), losses(2.0, perceptual(0.25), adversarial="hinge"))
    result = gan_step(gan, step, Turn(0.1, 0.0))
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter, wanted, atol=1e-6)
    assert torch.allclose(result.scalars["generator/perceptual"], SquaredError()(sr, step.target))


def test_generator_update_with_ldl_compares_with_the_average_and_leaves_it_alone(generator: SRVGGNetCompact) -> None:
    step, average, ldl = step_input(), SRVGGNetCompact(4, 1, 4), LocallyDiscriminativeLoss()
    terms = losses(0.0, ImageTerm("ldl", 3.0, ldl, needs_average=True), adversarial_weight=0.0)
    parameters, before = list(generator.parameters()), weights(average)
    total = 3.0 * ldl(generator(step.lq), step.target, average(step.lq))
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True)]
    result = gan_step(gan_of(generator, Recorder(), terms, average=average), step, Turn(0.1, 0.0))
    assert torch.allclose(result.scalars["generator/ldl"], total / 3)
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter, wanted, atol=1e-7)
    assert changed(average, before) == set()
    assert all(parameter.grad is None for parameter in average.parameters())


def test_pixel_stage_leaves_the_discriminator_and_the_perceptual_loss_out(generator: SRVGGNetCompact) -> None:
    discriminator = Recorder()
    gan = gan_of(generator, discriminator, losses(1.0, perceptual(0.25)))
    result = gan_step(gan, step_input(), Turn(1e-2, None))
    assert discriminator.seen == []
    assert report(result).keys() == {"generator/pixel", "generator/skipped"}


def test_discriminator_update_leaves_the_generator_untouched(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    own, other = weights(discriminator), weights(generator)
    result = gan_step(gan_of(generator, discriminator, losses()), step_input(), Turn(None, 1e-2))
    # The bias before the softmax of an attention over one image moves nothing, so not every name must change.
    assert {"conv_first.weight", "conv_last.weight", "conv1.weight"} <= changed(discriminator, own)
    assert changed(generator, other) == set()
    assert all(parameter.grad is None for parameter in generator.parameters())
    names = ("real", "fake", "real_logit", "fake_logit", "accuracy_real", "accuracy_fake", "skipped")
    assert report(result).keys() == {f"discriminator/{name}" for name in names}
    assert not any(value.requires_grad for value in report(result).values())


class Darkening(nn.Module):
    """A generator of dark images."""

    def __init__(self, gt: Tensor) -> None:
        super().__init__()
        self.sr = nn.Parameter(gt * 0.2)

    def forward(self, lq: Tensor) -> Tensor:
        return self.sr


def test_discriminator_learns_to_tell_hr_from_output(discriminator: PatchDiscriminator) -> None:
    step = step_input()
    gan = gan_of(Darkening(step.gt), discriminator, losses())
    for _ in range(20):
        scalars = gan_step(gan, step, Turn(None, 0.3)).scalars
    assert scalars["discriminator/real_logit"] > scalars["discriminator/fake_logit"] + 1


def test_update_with_clipping_moves_by_the_norm_at_most(generator: SRVGGNetCompact) -> None:
    network, before = descending(generator, clip_norm=0.01), weights(generator)
    network.backward(1000 * network(torch.rand(1, 3, 8, 8)).square().mean())
    network.step(1.0)
    moved = sum(
        float((parameter.detach() - before[name]).square().sum()) for name, parameter in generator.named_parameters()
    )
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_step_with_a_wrapped_discriminator_is_refused(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    gan = gan_of(generator, discriminator, losses())
    # DistributedDataParallel and DeepSpeed's engine keep the network under this name too.
    gan = replace(gan, adversaries=(Adversary(descending(nn.DataParallel(discriminator))),))
    with pytest.raises(ValueError, match=r"needs the bare discriminator; got DataParallel"):
        gan_step(gan, step_input(), both(1e-2))


def test_penalty_is_part_of_the_discriminators_update_alone_and_of_its_report(generator: SRVGGNetCompact) -> None:
    def updated(penalty: GradientPenalty) -> tuple[Recorder, dict[str, Tensor]]:
        torch.manual_seed(0)
        discriminator = Recorder()
        gan = gan_of(generator, discriminator, losses(), penalty=penalty)
        return discriminator, gan_step(gan, step_input(), Turn(0.0, 1.0)).scalars

    plain, without = updated(GradientPenalty())
    penalised, scalars = updated(GradientPenalty(r1_weight=2.0, r2_weight=3.0))
    assert scalars.keys() - without.keys() == {"discriminator/r1", "discriminator/r2"}
    # The recorder's logit is w times a mean: both terms are quadratic in w = 1, so that each has the slope 2 * term.
    slope = 2 * (scalars["discriminator/r1"] + scalars["discriminator/r2"])
    assert slope > 0
    assert (plain.weight - penalised.weight).item() == pytest.approx(slope.item(), rel=1e-4)
    assert torch.equal(without["generator/adversarial"], scalars["generator/adversarial"])

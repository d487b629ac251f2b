"""Each phase changes its own network and nothing else; what the terms are is checked against the losses themselves."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses import L1Loss, LocallyDiscriminativeLoss, build_adversarial_loss
from pipeline.models import PatchDiscriminator, SRVGGNetCompact
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.ema import MovingAverage
from pipeline.train.phases import DiscriminatorPhase, GeneratorLosses, GeneratorPhase, StepInput
from pipeline.train.report import RunningMeans

CHANNELS = 32


def trainable(module: nn.Module, clip_norm: float = 0.0) -> DdpTrainable:
    return DdpTrainable(module, module, torch.optim.SGD(module.parameters(), lr=123.0, fused=True), clip_norm)


def step_input() -> StepInput:
    gt = torch.rand(2, 3, 32, 32)
    return StepInput(torch.rand(2, 3, 8, 8), gt, gt * 0.5, torch.randn(2, CHANNELS, 2, 2))


@pytest.fixture
def generator() -> SRVGGNetCompact:
    return SRVGGNetCompact(4, 1, 4)


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    return PatchDiscriminator(16, CHANNELS)


def losses(adversarial: str = "vanilla", perceptual: nn.Module | None = None) -> GeneratorLosses:
    return GeneratorLosses(L1Loss(), 2.0, perceptual, 0.25, build_adversarial_loss(adversarial), 0.5)


def generator_phase(generator: nn.Module, discriminator: nn.Module | None, terms: GeneratorLosses) -> GeneratorPhase:
    return GeneratorPhase(trainable(generator), discriminator, terms, contextlib.nullcontext)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize("adversarial", ["vanilla", "relativistic_average"])
def test_generator_phase_when_adversarial_leaves_the_discriminator_untouched(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator, adversarial: str
) -> None:
    own, other = weights(generator), weights(discriminator)
    sr, scalars = generator_phase(generator, discriminator, losses(adversarial)).run(
        step_input(), 1e-2, is_adversarial=True
    )
    assert changed(generator, own) == own.keys()
    assert changed(discriminator, other) == set()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    assert scalars.keys() == {"generator/pixel", "generator/adversarial", "generator/skipped"}
    assert not any(value.requires_grad for value in (sr, *scalars.values()))


def test_generator_phase_when_it_fails_lets_the_discriminator_train_again(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    step = step_input()
    step = StepInput(step.lq, step.gt, step.target, step.semantics[:, :1])
    with pytest.raises(ValueError, match="semantics"):
        generator_phase(generator, discriminator, losses()).run(step, 1e-2, is_adversarial=True)
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


class Recorder(nn.Module):
    """A discriminator that is the mean of its image, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor, semantics: Tensor) -> Tensor:
        self.seen.append(image)
        return image.mean((1, 2, 3))


def test_generator_phase_when_relativistic_compares_with_the_truth(generator: SRVGGNetCompact) -> None:
    judge, step = Recorder(), step_input()
    with torch.no_grad():
        fake = generator(step.lq).mean((1, 2, 3))
    _, scalars = generator_phase(generator, judge, losses("relativistic_average")).run(step, 0.0, is_adversarial=True)
    expected = build_adversarial_loss("relativistic_average").generator(fake, step.gt.mean((1, 2, 3)))
    assert torch.allclose(scalars["generator/adversarial"], expected)
    assert len(judge.seen) == 2
    assert judge.seen[1] is step.gt


def test_generator_phase_when_the_loss_needs_no_truth_judges_once(generator: SRVGGNetCompact) -> None:
    judge = Recorder()
    generator_phase(generator, judge, losses()).run(step_input(), 0.0, is_adversarial=True)
    assert len(judge.seen) == 1


class ForbidWaiting(TorchDispatchMode):
    """Fails where a host would wait for its device: at a number read from it, or a size that depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("adversarial", ["vanilla", "relativistic_average"])
def test_step_reads_no_number_from_the_device(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator, adversarial: str
) -> None:
    terms = losses(adversarial)
    judging = DiscriminatorPhase(trainable(discriminator, 1.0), terms.adversarial, contextlib.nullcontext)
    phase = GeneratorPhase(trainable(generator, 1.0), discriminator, terms, contextlib.nullcontext)
    average, means, step = MovingAverage(generator), RunningMeans(), step_input()
    with ForbidWaiting():
        sr, scalars = phase.run(step, 1e-2, is_adversarial=True)
        means.add(scalars | judging.run(step, sr, 1e-2))
        average.update(0.9)
        with pytest.raises(AssertionError):
            float(sr.mean())  # what this test would find


class SquaredError(nn.Module):
    def forward(self, sr: Tensor, target: Tensor) -> Tensor:
        return (sr - target).square().mean()


def test_generator_phase_when_run_steps_down_the_weighted_sum_against_the_target(generator: SRVGGNetCompact) -> None:
    step, judge = step_input(), Recorder()
    parameters = list(generator.parameters())
    sr = generator(step.lq)
    terms = losses("hinge", SquaredError())
    total = 2.0 * L1Loss()(sr, step.target) + 0.25 * SquaredError()(sr, step.target) + 0.5 * -sr.mean()
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True)]
    _, scalars = generator_phase(generator, judge, terms).run(step, 0.1, is_adversarial=True)
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter, wanted, atol=1e-6)
    assert torch.allclose(scalars["generator/perceptual"], SquaredError()(sr, step.target))


def test_generator_phase_when_it_has_ldl_compares_with_the_average_and_leaves_it_alone(
    generator: SRVGGNetCompact,
) -> None:
    step, average = step_input(), SRVGGNetCompact(4, 1, 4)
    ldl = LocallyDiscriminativeLoss()
    terms = replace(losses(), pixel_weight=0.0, adversarial_weight=0.0, ldl=ldl, ldl_weight=3.0)
    parameters, before = list(generator.parameters()), weights(average)
    total = 3.0 * ldl(generator(step.lq), step.target, average(step.lq))
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True)]
    phase = replace(generator_phase(generator, Recorder(), terms), average=average)
    _, scalars = phase.run(step, 0.1, is_adversarial=True)
    assert torch.allclose(scalars["generator/ldl"], total / 3)
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter, wanted, atol=1e-7)
    assert changed(average, before) == set()
    assert all(parameter.grad is None for parameter in average.parameters())


def test_generator_phase_when_on_pixels_alone_does_not_ask_the_discriminator(generator: SRVGGNetCompact) -> None:
    judge = Recorder()
    _, scalars = generator_phase(generator, judge, losses("vanilla", SquaredError())).run(
        step_input(), 1e-2, is_adversarial=False
    )
    assert judge.seen == []
    assert scalars.keys() == {"generator/pixel", "generator/skipped"}


def test_discriminator_phase_when_run_leaves_the_generator_untouched(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    step = step_input()
    sr = generator(step.lq)
    own, other = weights(discriminator), weights(generator)
    phase = DiscriminatorPhase(trainable(discriminator), build_adversarial_loss("vanilla"), contextlib.nullcontext)
    scalars = phase.run(step, sr.detach(), 1e-2)
    # The bias before the softmax of an attention over one image moves nothing, so not every name must change.
    assert {"conv_first.weight", "conv_last.weight", "conv1.weight"} <= changed(discriminator, own)
    assert changed(generator, other) == set()
    assert all(parameter.grad is None for parameter in generator.parameters())
    names = ("real", "fake", "real_logit", "fake_logit", "skipped")
    assert scalars.keys() == {f"discriminator/{name}" for name in names}
    assert not any(value.requires_grad for value in scalars.values())


def test_discriminator_phase_when_trained_tells_truth_from_output(discriminator: PatchDiscriminator) -> None:
    step = step_input()
    phase = DiscriminatorPhase(trainable(discriminator), build_adversarial_loss("vanilla"), contextlib.nullcontext)
    for _ in range(20):
        scalars = phase.run(step, step.gt * 0.2, 0.3)
    assert scalars["discriminator/real_logit"] > scalars["discriminator/fake_logit"] + 1


def test_step_when_clipping_is_on_moves_by_the_norm_at_most(generator: SRVGGNetCompact) -> None:
    network, before = trainable(generator, clip_norm=0.01), weights(generator)
    network.backward(1000 * network(torch.rand(1, 3, 8, 8)).square().mean())
    network.step(1.0)
    moved = sum(
        float((parameter.detach() - before[name]).square().sum()) for name, parameter in generator.named_parameters()
    )
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_generator_phase_when_given_a_wrapped_judge_refuses_it(
    generator: SRVGGNetCompact, discriminator: PatchDiscriminator
) -> None:
    # DistributedDataParallel and DeepSpeed's engine keep the network under this name too.
    wrapped = nn.DataParallel(discriminator)
    with pytest.raises(ValueError, match=r"judged by the bare discriminator; got DataParallel.*Trainable\.bare"):
        generator_phase(generator, wrapped, losses())

"""One pass on the output for both updates gives what two passes give."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.losses import L1Loss, build_adversarial_loss
from pipeline.models import PatchDiscriminator, SRVGGNetCompact, UNetDiscriminator
from pipeline.models.discriminators.base import Prepared
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.runtime.trainable import DdpTrainable, OptimizerState, Trainable
from pipeline.train.phases import DiscriminatorPhase, GeneratorLosses, GeneratorPhase, StepInput

CHANNELS = 64


def run_step(
    generator: nn.Module, discriminator: nn.Module, adversarial: str, *, shares: bool
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Train a copy of both for a step; return the scalars and the weights."""
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    trained = [
        DdpTrainable(network, network, torch.optim.SGD(network.parameters(), 1.0, fused=True), 0.0)
        for network in (generator, discriminator)
    ]
    loss = build_adversarial_loss(adversarial)
    judge = DiscriminatorPhase(trained[1], loss, contextlib.nullcontext)
    terms = GeneratorLosses(L1Loss(), 1.0, None, 0.0, loss, 0.5)
    phase = GeneratorPhase(trained[0], discriminator, terms, contextlib.nullcontext, judge=judge if shares else None)
    torch.manual_seed(1)
    gt = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    lq = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    step = StepInput(lq, gt, gt, torch.rand(2, CHANNELS, 2, 2, dtype=torch.float64))
    step = judge.begin(step)
    sr, scalars = phase.run(step, 0.1, is_adversarial=True)
    scalars |= judge.run(step, sr, 0.1)
    return scalars, [*generator.parameters(), *discriminator.parameters()]


def networks(network: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator, discriminator = SRVGGNetCompact(8, 1, 4).double(), network(8, semantic_channels=CHANNELS).double()
    for module in discriminator.modules():
        if isinstance(module, SpectralNormConv2d):
            # Far into training the vectors rest, so that one iteration less changes nothing.
            module.reset_vectors(num_iterations=3000)
    return generator, discriminator


@pytest.mark.parametrize("adversarial", ["vanilla", "least_squares", "hinge", "relativistic_average"])
@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_step_with_a_shared_pass_equals_separate_passes_but_for_one_iteration(network, adversarial):
    generator, discriminator = networks(network)
    wanted_scalars, wanted = run_step(generator, discriminator, adversarial, shares=False)
    scalars, weights = run_step(generator, discriminator, adversarial, shares=True)
    for name, value in wanted_scalars.items():
        # The loop keeps scalars in float32.
        torch.testing.assert_close(scalars[name].float(), value.float(), rtol=1e-6, atol=1e-7)
    for one, other in zip(weights, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


class CountingPatchDiscriminator(PatchDiscriminator):
    """Counts the batches that it judges, and how often it looks at semantics."""

    num_judged = num_prepared = 0

    def prepare(self, semantics: Tensor) -> Prepared:
        CountingPatchDiscriminator.num_prepared += 1
        return super().prepare(semantics)

    def judge(self, image: Tensor, prepared: Prepared | None) -> Tensor:
        CountingPatchDiscriminator.num_judged += 1
        return super().judge(image, prepared)


@pytest.mark.parametrize(
    ("adversarial", "shares", "num_passes"),
    [("vanilla", True, 2), ("vanilla", False, 3), ("relativistic_average", True, 4)],
)
def test_step_judges_as_often_as_it_must_and_looks_at_semantics_once(adversarial, shares, num_passes):
    generator, _ = networks(PatchDiscriminator)
    CountingPatchDiscriminator.num_judged = CountingPatchDiscriminator.num_prepared = 0
    discriminator = CountingPatchDiscriminator(8, semantic_channels=CHANNELS).double()
    run_step(generator, discriminator, adversarial, shares=shares)
    assert CountingPatchDiscriminator.num_judged == num_passes
    assert CountingPatchDiscriminator.num_prepared == 1


class EngineTrainable(Trainable):
    """Stands for an engine that keeps gradients elsewhere."""

    def backward(self, loss: Tensor) -> None: ...

    def step(self, learning_rate: float) -> None: ...

    def optimizer_state(self) -> OptimizerState:
        return {}

    def load_optimizer_state(self, state: OptimizerState) -> None: ...

    def weights_changed(self) -> None: ...


def test_engine_does_not_share_a_pass():
    module = nn.Linear(1, 1)
    phase = DiscriminatorPhase(
        EngineTrainable(module, module), build_adversarial_loss("vanilla"), contextlib.nullcontext
    )
    assert not phase.can_judge_once

"""One pass on the output for both updates gives what two passes give."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from gans import both, gan_of, losses, report
from torch import Tensor, nn

from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.generators import SRVGGNetCompact
from pipeline.train.gan_step import GanStep, gan_step, gan_step_shared_pass
from pipeline.train.micro_batches import StepInput

CHANNELS = 64


def run_step(
    generator: nn.Module, discriminator: nn.Module, adversarial: str, step: GanStep
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Train a copy of both for a step; return the scalars and the weights."""
    generator, discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    torch.manual_seed(1)
    gt = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    lq = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    batch = StepInput(lq, gt, gt, torch.rand(2, CHANNELS, 2, 2, dtype=torch.float64))
    result = step(gan_of(generator, discriminator, losses(adversarial=adversarial)), batch, both(0.1))
    return report(result), [*generator.parameters(), *discriminator.parameters()]


@functools.cache
def networks(network: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator, discriminator = SRVGGNetCompact(8, 1, 4).double(), network(8, semantic_channels=CHANNELS).double()
    for module in discriminator.modules():
        if isinstance(module, SpectralNormConv2d):
            # Far into training the vectors rest, so that one iteration less changes nothing.
            module.reset_vectors(num_iterations=3000)
    return generator, discriminator


@pytest.mark.parametrize("adversarial", ["vanilla", "least_squares", "hinge"])
@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_step_with_a_shared_pass_equals_separate_passes_but_for_one_iteration(network, adversarial):
    generator, discriminator = networks(network)
    wanted_scalars, wanted = run_step(generator, discriminator, adversarial, gan_step)
    scalars, weights = run_step(generator, discriminator, adversarial, gan_step_shared_pass)
    assert scalars.keys() == wanted_scalars.keys()
    for name, value in wanted_scalars.items():
        # The loop keeps scalars in float32.
        torch.testing.assert_close(scalars[name].float(), value.float(), rtol=1e-6, atol=1e-7)
    for one, other in zip(weights, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


class CountingPatchDiscriminator(PatchDiscriminator):
    """Counts the batches that pass through it."""

    num_passes = 0

    def logits(self, image: Tensor, semantics: Tensor | None) -> Tensor:
        CountingPatchDiscriminator.num_passes += 1
        return super().logits(image, semantics)


@pytest.mark.parametrize(
    ("adversarial", "step", "num_passes"),
    [("vanilla", gan_step_shared_pass, 2), ("vanilla", gan_step, 3), ("relativistic_average", gan_step, 4)],
)
def test_step_runs_the_discriminator_as_often_as_it_must(adversarial, step, num_passes):
    generator, _ = networks(PatchDiscriminator)
    CountingPatchDiscriminator.num_passes = 0
    run_step(generator, CountingPatchDiscriminator(8, semantic_channels=CHANNELS).double(), adversarial, step)
    assert CountingPatchDiscriminator.num_passes == num_passes

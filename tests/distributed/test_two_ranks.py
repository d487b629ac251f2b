"""Two gloo ranks against one process with the whole batch: the same networks after the same steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engines import BATCH, step_input
from gans import both, losses
from harness import run_ranks, runtime_config
from spandrel_sizes import small_options
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import SRVGGNetCompact, build_generator
from pipeline.runtime.backend import Backend
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step, gan_step_shared_pass

STEPS = 3


def train_steps(backend: Backend, rows: slice, *, shares: bool) -> dict[str, Tensor]:
    """Train both networks for a few steps; return their weights and buffers."""
    torch.manual_seed(0)
    generator, discriminator = SRVGGNetCompact(8, 2, 4), PatchDiscriminator(8, 64)
    trained_g = backend.wrap(generator, torch.optim.Adam(generator.parameters(), fused=True))
    trained_d = backend.wrap(discriminator, torch.optim.Adam(discriminator.parameters(), fused=True))
    gan = Gan(trained_g, (Adversary(trained_d),), losses(adversarial_weight=0.1), generator, backend.autocast)
    step = gan_step_shared_pass if shares else gan_step
    for number in range(STEPS):
        step(gan, step_input(number, rows), both(1e-3))
    return weights_of(generator, "generator") | weights_of(discriminator, "discriminator")


def weights_of(network: nn.Module, name: str) -> dict[str, Tensor]:
    return {f"{name}.{key}": value.clone() for key, value in network.state_dict().items()}


def open_backend(batch_size: int = BATCH) -> Backend:
    return Backend(runtime_config(), batch_size=batch_size)


def on_rank(rank: int, world_size: int, reference: str) -> None:
    backend = open_backend()
    assert (backend.rank, backend.world_size, backend.micro_batch_size) == (rank, world_size, BATCH // world_size)
    assert backend.is_leader == (rank == 0)
    assert backend.any_rank(rank == 1)
    assert not backend.any_rank(False)
    assert backend.sum(torch.tensor([rank + 1.0, 2.0])).tolist() == [3.0, 4.0]
    share = backend.micro_batch_size
    for shares in (False, True):
        ours = train_steps(backend, slice(rank * share, (rank + 1) * share), shares=shares)
        expected = torch.load(f"{reference}.{shares}", weights_only=True)
        worst = {name: float((ours[name] - value).abs().max()) for name, value in expected.items()}
        # Adam divides by the gradient's own size, which makes rounding of near-zero gradients visible.
        assert max(worst.values()) < 2e-5, sorted(worst.items(), key=lambda item: -item[1])[:3]
    with pytest.raises(ConfigError, match="3 images per step cannot be split over 2 processes"):
        open_backend(batch_size=3)
    backend.close()


@pytest.mark.distributed
def test_two_ranks_with_half_a_batch_each_train_what_one_does_with_the_whole(tmp_path: Path) -> None:
    for shares in (False, True):
        weights = train_steps(open_backend(), slice(0, BATCH), shares=shares)
        torch.save(weights, tmp_path / f"reference.{shares}")
    run_ranks(on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path / "reference"),))


def span_on_rank(rank: int, world_size: int) -> None:
    backend = open_backend()
    torch.manual_seed(0)
    generator = build_generator(small_options("SPAN"))
    trained = backend.wrap(generator, torch.optim.Adam(generator.parameters(), fused=True))
    gan = Gan(trained, (), losses(), generator, backend.autocast)
    share = backend.micro_batch_size
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    for number in range(2):  # DDP stops in the second step if a gradient was missing in the first
        gan_step(gan, step_input(number, slice(rank * share, (rank + 1) * share)), Turn(1e-3, None))
    assert all(not torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    backend.close()


@pytest.mark.distributed
def test_two_ranks_train_a_network_that_computes_weights_of_its_own(tmp_path: Path) -> None:
    run_ranks(span_on_rank, world_size=2, folder=tmp_path)

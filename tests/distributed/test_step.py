"""One step on two gloo ranks, under every engine, against what it must be."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from engines import ENGINES, Pair, build_networks, open_backend, step_input
from gans import both, descending, losses
from harness import run_ranks
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F

from pipeline.checkpoint import Checkpoint
from pipeline.models.discriminators import UNetDiscriminator
from pipeline.runtime.backend import Backend
from pipeline.runtime.trainable import Trainable
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step
from pipeline.train.micro_batches import StepInput

STEPS = 3
CLIP_NORM = 0.003
QUICK = ["ddp", "zero 2"]


def plain_steps(dtype: torch.dtype, learning_rate: float, clip_norm: float) -> list[dict[str, Tensor]]:
    """Gradient descent on the whole batch in one process, written out; nothing of the pipeline's training is in it."""
    generator, discriminator = (network.to(dtype) for network in build_networks())
    for number in range(STEPS):
        lq, gt, _, semantics = (tensor.to(dtype) for tensor in vars(step_input(number)).values())
        sr = generator(lq)
        loss = (sr - gt).abs().mean() + 0.1 * F.softplus(-discriminator(sr, semantics)).mean()
        descend(generator, loss, learning_rate, clip_norm)
        real, fake = discriminator((gt, sr.detach()), semantics)
        descend(discriminator, F.softplus(-real).mean() + F.softplus(fake).mean(), learning_rate, clip_norm)
    return [dict(network.state_dict()) for network in (generator, discriminator)]


def descend(network: nn.Module, loss: Tensor, learning_rate: float, clip_norm: float) -> None:
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    factor = min(1.0, clip_norm / float(norm)) if clip_norm else 1.0
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= learning_rate * factor * gradient


def worst(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> float:
    return max(
        float((one[name].double() - value.double()).abs().max())
        for one, other in zip(ours, theirs, strict=True)
        for name, value in other.items()
    )


def check_equal(engine: str, folder: Path, clip_norm: float, micro_batch_size: int) -> Backend:
    """Plain descent, since Adam divides by the gradient's own size and blows up the rounding of what is almost zero."""
    backend = open_backend(engine, folder, gradient_clip_norm=clip_norm)
    # Unclipped, the generator's gradients are above 1, where Accelerate would clip those of DeepSpeed unasked.
    factor = 1.0 if clip_norm else 1000.0
    pair = Pair(
        backend,
        optimizer=torch.optim.SGD,
        learning_rate=0.1,
        loss_factor=factor,
        micro_batch_size=micro_batch_size,
    )
    reductions = count_reductions(pair) if engine == "ddp" else None
    for number in range(STEPS):
        pair.step(step_input(number, pair.rows))
    exact, rounded = (plain_steps(dtype, 0.1, clip_norm) for dtype in (torch.float64, torch.float32))
    error, of_rounding = worst(pair.weights(), exact), worst(rounded, exact)
    # Weights are below 1, where float32 is exact to 6e-8; the one process's own float32 steps are 1.1e-7 off.
    assert of_rounding < 3e-7
    assert error < 3e-7, (engine, clip_norm, micro_batch_size, error)
    if reductions is not None:
        assert reductions == {"generator": STEPS, "discriminator": STEPS}
    return backend


def count_reductions(pair: Pair) -> dict[str, int]:
    """Count how often DDP averages each network's gradients from now on."""
    counts = {"generator": 0, "discriminator": 0}

    def reduce(name, bucket):  # DDP refuses annotations that are strings, as all are here
        counts[name] += bucket.is_last()
        return allreduce_hook(dist.group.WORLD, bucket)

    for name, trained in zip(counts, pair.trained, strict=True):
        trained._wrapped.register_comm_hook(name, reduce)
    return counts


def check_untouched(engine: str, folder: Path) -> None:
    """Each update changes its own network and nothing of the other."""
    pair = Pair(open_backend(engine, folder))
    pair.step(step_input(0, pair.rows))
    num_kept = sum(parameter.numel() for network in pair.networks for parameter in network.parameters())
    assert (num_kept == 0) == (engine == "zero 3"), "only stage 3 keeps no whole weights between the steps"
    step = step_input(1, pair.rows)
    before, states = pair.parameters(), pair.optimizer_states()
    pair.step(step, Turn(1e-3, None))
    assert worst(pair.parameters()[:1], before[:1]) > 1e-5, engine
    assert_same(pair.parameters()[1], before[1], engine)
    assert_same(pair.trained[1].optimizer_state(), states[1], engine)
    discriminator, own, state = pair.parameters()[1], pair.parameters()[0], pair.optimizer_states()[0]
    measured = pair.step(step, Turn(1e-3, 1e-3, discriminator_rests=True))
    assert worst(pair.parameters()[:1], [own]) > 1e-5, engine
    assert_same(pair.parameters()[1], discriminator, engine)
    assert_same(pair.trained[1].optimizer_state(), states[1], engine)
    assert {"discriminator/accuracy_real", "discriminator/accuracy_fake"} <= measured.keys(), engine
    own, state = pair.parameters()[0], pair.optimizer_states()[0]
    pair.step(step, Turn(None, 1e-3))
    assert worst(pair.parameters()[1:], before[1:]) > 1e-5, engine
    assert_same(pair.parameters()[0], own, engine)
    assert_same(pair.trained[0].optimizer_state(), state, engine)


def check_half_precision(engine: str, folder: Path, rank: int) -> None:
    """The networks run in bf16, also inside an engine; weights, buffers and the spectral norms stay float32."""
    backend = open_backend(engine, folder, precision="bf16")
    pair = Pair(backend)
    step = step_input(0, pair.rows)
    if engine != "ddp":
        # On a GPU an engine that was not told would switch our own autocast off.
        assert pair.trained[1](step.gt, step.semantics).dtype == torch.bfloat16, engine
    with backend.autocast():
        assert pair.trained[1].bare(step.gt, step.semantics).dtype == torch.bfloat16, engine
    scalars = pair.step(step)
    assert (scalars["generator/skipped"], scalars["discriminator/skipped"]) == (0, 0), engine
    for name, value in (item for weights in pair.weights() for item in weights.items()):
        assert value.dtype == torch.float32, (engine, name)
        others = backend.sum(value * (1 if rank == 0 else -1))
        assert not others.any(), f"{engine}: {name} differs between the ranks"


def check_several(engine: str, folder: Path) -> None:
    """Two discriminators under an engine move as in one process with the whole batch, written by the same step."""

    def gan_of(train: Callable[[nn.Module], Trainable]) -> tuple[Gan, list[Trainable]]:
        trained = [train(network) for network in (*build_networks(), UNetDiscriminator(4))]
        adversaries = (Adversary(trained[1]), Adversary(trained[2], "discriminator_2", is_semantic=False))
        terms = dataclasses.replace(losses(adversarial_weight=0.1), further_weights={"adversarial_2": 0.3})
        return Gan(trained[0], adversaries, terms, nn.Identity(), contextlib.nullcontext, 1), trained

    backend = open_backend(engine, folder)
    gan, ours = gan_of(lambda net: backend.wrap(net, torch.optim.SGD(net.parameters(), lr=1.0, fused=True)))
    share = backend.micro_batch_size
    rows = slice(backend.rank * share, (backend.rank + 1) * share)
    alone, theirs = gan_of(descending)
    for number in range(2):
        gan_step(gan, step_input(number, rows), both(0.01))
        gan_step(alone, step_input(number), both(0.01))
    weights = [[copy.deepcopy(one.weights()) for one in networks] for networks in (ours, theirs)]
    assert worst(weights[1], [dict(one.state_dict()) for one in (*build_networks(), UNetDiscriminator(4))]) > 1e-4
    assert worst(*weights) < 1e-6, engine


def equal_on_rank(rank: int, world_size: int, folder: str, engines: Sequence[str]) -> None:
    assert worst(plain_steps(torch.float64, 0.1, CLIP_NORM), plain_steps(torch.float64, 0.1, 0.0)) > 1e-4
    for engine in engines:
        check_untouched(engine, Path(folder))
        check_half_precision(engine, Path(folder), rank)
        check_several(engine, Path(folder))
        check_equal(engine, Path(folder), 0.0, 0)
        backend = check_equal(engine, Path(folder), CLIP_NORM, 1)
    backend.close()


@pytest.mark.distributed
@pytest.mark.parametrize(
    "engines",
    [QUICK, pytest.param([name for name in ENGINES if name not in QUICK], marks=pytest.mark.slow)],
    ids=["quick", "others"],
)
def test_steps_under_every_engine_are_those_of_one_process_with_the_whole_batch(
    tmp_path: Path, engines: Sequence[str]
) -> None:
    run_ranks(equal_on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path), engines), timeout_s=400)


def assert_same(ours: object, theirs: object, where: object) -> None:
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for name in ours:
            assert_same(ours[name], theirs[name], (where, name))
    else:
        raise TypeError(type(ours))


def spoil(step: StepInput, what: str) -> StepInput:
    """A batch with one bad value: in the input, where it reaches everything, or in a target, where L1 hides it."""
    bad = {"lq": step.lq, "target": step.target}[what].clone()
    bad[0, 0, 0, 0] = torch.nan
    return StepInput(**{**vars(step), what: bad})


def skip_on_rank(rank: int, world_size: int, folder: str) -> None:
    for engine in ENGINES:
        for what in ("lq", "target"):
            backend = open_backend(engine, Path(folder))
            pair = Pair(backend, shares=engine == "ddp" and what == "lq")
            pair.step(step_input(0, pair.rows))
            weights, states = pair.parameters(), pair.optimizer_states()
            step = step_input(1, pair.rows)
            scalars = pair.step(spoil(step, what) if rank == 1 else step)
            assert scalars["generator/skipped"] == 1, (engine, what)
            # A bad target is the generator's alone: the discriminator saw nothing of it.
            assert scalars["discriminator/skipped"] == float(what == "lq"), (engine, what)
            for number in range(2 if what == "lq" else 1):
                assert_same(pair.parameters()[number], weights[number], (engine, what))
                assert_same(pair.optimizer_states()[number], states[number], (engine, what))
            assert pair.step(step_input(2, pair.rows))["generator/skipped"] == 0
            assert int(next(iter(pair.optimizer_states()[0]["step"].values()))) == 2
    backend.close()


@pytest.mark.slow
@pytest.mark.distributed
def test_step_with_nan_in_one_ranks_batch_is_skipped_by_both(tmp_path: Path) -> None:
    run_ranks(skip_on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path),))


def snapshot(pair: Pair, images_seen: int) -> Checkpoint:
    """What a checkpoint of the pair holds, on the CPU."""
    pair.state.images_seen = images_seen
    return copy.deepcopy(pair.state.to_checkpoint({}))


def hand_over_on_rank(rank: int, world_size: int, folder: str) -> None:
    handed, expected = None, None
    for engine in ENGINES:
        backend = open_backend(engine, Path(folder))
        pair = Pair(backend)
        if handed is None:
            pair.step(step_input(0, pair.rows))
        else:
            pair.state.load(handed, backend.device)
            assert_same(dict(snapshot(pair, 4).tensors), dict(handed.tensors), engine)
        # What this engine gives back is what the next one takes.
        handed = snapshot(pair, 4)
        pair.step(step_input(1, pair.rows))
        after = snapshot(pair, 8)
        expected = expected or after
        for group, tensors in expected.tensors.items():
            for name, value in tensors.items():
                torch.testing.assert_close(
                    after.tensors[group][name], value, rtol=1e-4, atol=1e-6, msg=f"{engine}: {group} {name}"
                )
    backend.close()


@pytest.mark.slow
@pytest.mark.distributed
def test_state_of_one_engine_is_resumed_by_every_other(tmp_path: Path) -> None:
    run_ranks(hand_over_on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path),))

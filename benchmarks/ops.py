"""What does each fast operator of `pipeline/models/ops` save over its plain twin, as a share of a training step?

Every operator runs forward and backward at the shapes it has in the full-size networks, alternating with its plain
twin, in one process on one thread. The gain is the median over pairs, in CPU time of this process, since others may use
the machine; summed over the calls of a step and divided by the time of a step's networks: the generator and the
perceptual loss once, the discriminator three times (for the generator, on real, on fake), each forward and backward.
An operator stays if it buys 3% of a step, or memory: the table says what each keeps for the backward pass.

Run:
    python benchmarks/ops.py
    python benchmarks/ops.py --batch 4 --repeats 15
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from _measure import time_step
from _origin import add_json_argument, extremes, publish
from _tables import Row, label, ratio, row_of, seconds
from torch import Tensor, nn

from pipeline.losses import PerceptualLoss
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.generators import RRDBNet
from pipeline.models.ops.dense_convolutions import dense_convolutions, dense_convolutions_plain
from pipeline.models.ops.upsampled_convolution import upsampled_convolution, upsampled_convolution_plain
from pipeline.runtime.host_memory import keep_freed_memory

Operator = Callable[..., Tensor]
Inputs = tuple[Tensor, ...]
DISCRIMINATORS = {"P+SeD": PatchDiscriminator, "U+SeD": UNetDiscriminator}
DISCRIMINATOR_PASSES = 3
COLUMNS = (
    label("operator"),
    label("step"),
    label("batch"),
    seconds("fast, ms per step", ".0f"),
    seconds("plain, ms per step", ".0f"),
    ratio("saves, of a step", form=".1%"),
    ratio("fast, MiB kept", "lower", ".1f"),
    ratio("plain, MiB kept", "lower", ".1f"),
)


@dataclass(frozen=True)
class Case:
    """An operator at one shape of a network.

    Attributes:
        operator: Its name in the table.
        network: Whose step it is part of; "RRDB" is in the step of both.
        fast: The operator.
        plain: Its twin.
        inputs: What both are called on.
        parameters: What else gets a gradient.
        calls: How often a step calls it.
    """

    operator: str
    network: str
    fast: Operator
    plain: Operator
    inputs: Inputs
    parameters: Inputs
    calls: int


def draw(*shape: int) -> Tensor:
    """Return noise in channels_last, as in the presets."""
    return torch.rand(shape).contiguous(memory_format=torch.channels_last).requires_grad_()


def dense_cases(batch: int, crop_px: int) -> list[Case]:
    """Return RRDB's dense block: three in each of 23 blocks."""
    layers = [nn.Conv2d(64 + 32 * index, 32 if index < 4 else 64, 3, padding=1) for index in range(5)]
    stack = nn.ModuleList(layers).to(memory_format=torch.channels_last)
    fast, plain = (
        functools.partial(run, convolutions=layers, slope=0.2) for run in (dense_convolutions, dense_convolutions_plain)
    )
    features = draw(batch, 64, crop_px // 4, crop_px // 4)
    return [Case("dense_convolutions", "RRDB", fast, plain, (features,), tuple(stack.parameters()), 69)]


def unet_cases(batch: int, crop_px: int) -> list[Case]:
    """Return the upsampling convolutions of U."""
    cases = []
    for channels, stride in ((256, 4), (128, 2), (64, 1)):
        side = crop_px // stride
        inputs = (draw(batch, 2 * channels, side // 2, side // 2), draw(channels, 2 * channels, 3, 3))
        twins = (upsampled_convolution, upsampled_convolution_plain)
        cases.append(Case("upsampled_convolution", "U+SeD", *twins, inputs, (), DISCRIMINATOR_PASSES))
    return cases


def once(run: Operator, case: Case) -> None:
    """Run an operator forward and backward."""
    out = run(*case.inputs)
    torch.autograd.grad(out, [*case.inputs, *case.parameters], torch.ones_like(out))


def kept_mib(run: Operator, case: Case) -> float:
    """Return what autograd keeps of an operator for the backward pass beside its inputs and parameters."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run(*case.inputs)
    given = {tensor.data_ptr() for tensor in (*case.inputs, *case.parameters)}
    del out
    return sum(size for pointer, size in kept.items() if pointer not in given) / 2**20


def compare(case: Case, repeats: int) -> tuple[float, float, float, float, float]:
    """Return the CPU seconds of fast and plain, and the median, least and most of what a pair of them differs by."""
    ways = [functools.partial(once, run, case) for run in (case.fast, case.plain)]
    for way in ways:
        way()
    pairs = [tuple(time_step(way)[1] for way in ways) for _ in range(repeats)]
    fast, plain = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    gains = [slow - quick for quick, slow in pairs]
    return fast, plain, statistics.median(gains), *extremes(gains)


def time_networks(batch: int, crop_px: int, repeats: int) -> dict[str, float]:
    """Return the CPU seconds of a step's networks, by discriminator."""
    layout = torch.channels_last
    generator, perceptual = (
        RRDBNet().to(memory_format=layout),
        PerceptualLoss(weights="random").to(memory_format=layout),
    )
    lq, gt = draw(batch, 3, crop_px // 4, crop_px // 4), draw(batch, 3, crop_px, crop_px)
    semantics = draw(batch, 1024, crop_px // 16, crop_px // 16).detach()

    def seconds(run: Callable[[], Tensor]) -> float:
        first, *timed = [time_step(lambda: run().mean().backward())[1] for _ in range(1 + repeats)]
        del first  # it fills the allocator
        return statistics.median(timed)

    shared = seconds(lambda: generator(lq)) + seconds(lambda: perceptual(gt, gt.detach().flip(2)))
    networks = {name: build(64, 1024).to(memory_format=layout) for name, build in DISCRIMINATORS.items()}
    return {
        name: shared + DISCRIMINATOR_PASSES * seconds(functools.partial(network, gt, semantics))
        for name, network in networks.items()
    }


def rows_of(cases: Sequence[Case], steps: dict[str, float], options: argparse.Namespace) -> list[Row]:
    """Measure every operator and return the table's rows, one for each step that it is part of."""
    rows = []
    for operator in dict.fromkeys(case.operator for case in cases):
        own = [case for case in cases if case.operator == operator]
        measured = [compare(case, options.repeats) for case in own]
        fast, plain, gain, least, most = (
            sum(case.calls * values[index] for case, values in zip(own, measured, strict=True)) for index in range(5)
        )
        memory = [sum(kept_mib(run(case), case) for case in own) for run in (lambda c: c.fast, lambda c: c.plain)]
        for network, step in steps.items():
            if own[0].network in ("RRDB", network):
                cells = (operator, network, options.batch, 1e3 * fast, 1e3 * plain, gain / step, *memory)
                rows.append(row_of(COLUMNS, *cells, spread={"saves, of a step": (least / step, most / step)}))
    return rows


def main() -> None:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crop-px", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--step-repeats", type=int, default=1, help="of the networks that make up a step")
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    keep_freed_memory()
    torch.set_num_threads(1)
    steps = time_networks(options.batch, options.crop_px, options.step_repeats)
    cases = [*dense_cases(options.batch, options.crop_px), *unet_cases(options.batch, options.crop_px)]
    print({name: f"{seconds:.1f} s per step" for name, seconds in steps.items()}, flush=True)
    publish("operators", COLUMNS, rows_of(cases, steps, options), options)


if __name__ == "__main__":
    main()

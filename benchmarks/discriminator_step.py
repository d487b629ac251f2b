"""How fast is one discriminator update plus its pass in the generator's update, against the SeD release?

Both sides get the same weights, images and semantics, in one process, alternating, so that a busy machine
slows both. Peak memory is read in a process of its own for each side. Three ways are timed:

* reference: the release's network and its three passes a step (fake for the generator, real, fake again);
* apart: ours with three passes as well, as the trainer does under DeepSpeed and with a relativistic loss;
* shared: ours as the trainer does otherwise, one pass on the fake for both updates. Exact, since neither the weights
  nor the image change in between; the spectral norms then iterate twice a step instead of thrice.

Seconds are given by the wall clock and of this process on the CPU; on a machine that others use, the second says more.

Run:
    git clone https://github.com/lbc12345/SeD /tmp/SeD
    python benchmarks/discriminator_step.py --reference /tmp/SeD
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from _measure import (
    FlopCounter,
    build_reference_discriminator,
    import_reference,
    matrix_rate,
    peak_mib,
    time_repeats,
    time_step,
)
from _origin import add_json_argument, extremes, publish, speed_up
from _tables import Column, Row, label, mib, ratio, row_of, seconds
from torch import Tensor, nn

from pipeline.losses import GeneratorLosses, VanillaLoss
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator, load_discriminator_weights
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.gan_step import Adversary, Gan, GanStep, Turn, gan_step, gan_step_shared_pass
from pipeline.train.micro_batches import StepInput

NETWORKS = {"P+SeD": ("SeD_P", PatchDiscriminator), "U+SeD": ("SeD_U", UNetDiscriminator)}
WAYS = ("reference", "apart", "shared")
COLUMNS = (
    label("network"),
    label("batch"),
    label("passes"),
    seconds("wall s"),
    ratio("speed-up"),
    seconds("CPU s"),
    ratio("speed-up by CPU s"),
    mib(),
    ratio("memory, of the reference's", "lower"),
    Column("GFLOP", ",.0f", "lower", is_compared=True, noise=0.001),
    Column("of matrix rate", ".0%", "higher"),
)
TARGETS = {  # with four images
    "P+SeD": {"speed-up by CPU s": 1.15, "memory, of the reference's": 0.9},
    "U+SeD": {"speed-up by CPU s": 1.5, "memory, of the reference's": 0.7},
}
Result = tuple[float, Tensor | None]
"""The discriminator's loss, and the gradient of the fake image."""
Step = Callable[[], Result]


def build_step(way: str, name: str, options: argparse.Namespace) -> Step:
    """Return a step of one way, with networks and inputs of its own."""
    reference = build_reference_discriminator(NETWORKS[name][0], options.reference)
    generator = torch.Generator().manual_seed(1)
    shape = (options.batch, 3, options.crop_px, options.crop_px)
    real, fake = (torch.rand(shape, generator=generator) for _ in range(2))
    grid = options.crop_px // 16
    semantics = torch.rand((options.batch, 1024, grid, grid), generator=generator)
    network = reference
    if way != "reference":
        network = NETWORKS[name][1](64, semantic_channels=1024)
        load_discriminator_weights(network, reference.state_dict())
        if options.channels_last:
            layout = torch.channels_last
            network = network.to(memory_format=layout)
            real, fake, semantics = (part.contiguous(memory_format=layout) for part in (real, fake, semantics))
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, (0.9, 0.99), fused=True)
    run = {
        "reference": three_passes,
        "apart": functools.partial(trainers_step, gan_step),
        "shared": functools.partial(trainers_step, gan_step_shared_pass),
    }[way]
    return lambda: run(network, optimizer, real, fake.clone().requires_grad_(), semantics)


def three_passes(
    network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, semantics: Tensor
) -> Result:
    """Run the release's step: the generator's pass with frozen weights, then real and fake with a backward each."""
    network.requires_grad_(False)
    fools = network(fake, semantics)
    F.binary_cross_entropy_with_logits(fools, torch.ones_like(fools)).backward()
    network.requires_grad_(True)
    optimizer.zero_grad()
    real_logits = network(real, semantics)
    real_loss = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    real_loss.backward()
    fake_logits = network(fake.detach().clone(), semantics)
    fake_loss = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    fake_loss.backward()
    optimizer.step()
    return float((real_loss + fake_loss).detach()), fake.grad


class Output(nn.Module):
    """A generator that is its own output, so that a step costs what its discriminator costs."""

    def __init__(self, sr: Tensor) -> None:
        super().__init__()
        self.sr = nn.Parameter(sr)

    def forward(self, lq: Tensor) -> Tensor:
        """Return the output, whatever the input."""
        return self.sr


def trainers_step(
    step: GanStep, network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, semantics: Tensor
) -> Result:
    """Make the trainer's step; the movement of the output under gradient descent is its gradient."""
    generator = Output(fake.detach().clone())
    descent = torch.optim.SGD(generator.parameters(), 1.0, fused=True)
    trained = (DdpTrainable(generator, generator, descent, 0.0), DdpTrainable(network, network, optimizer, 0.0))
    gan = Gan(
        trained[0], (Adversary(trained[1]),), GeneratorLosses((), VanillaLoss(), 1.0), generator, contextlib.nullcontext
    )
    scalars = step(gan, StepInput(real, real, real, semantics), Turn(1.0, 1e-4)).scalars
    return float(scalars["discriminator/real"] + scalars["discriminator/fake"]), fake.detach() - generator.sr.detach()


def check_equal_numerics(steps: dict[str, Step]) -> dict[str, int]:
    """Run each way once, refuse to time what computes something else, and return the FLOPs of each.

    In float32 a rounding error may carry an activation across the kink of a LeakyReLU, which changes the gradient
    there by a factor; so the whole gradient is compared, not its worst pixel. With a single image 2.6% of it
    were seen to differ; in float64 all agree to 1e-12 (`tests/parity`). The loss of `shared` differs by the spectral
    norms' iteration.
    """
    flops, results = {}, {}
    for way, step in steps.items():
        with FlopCounter() as counter:
            results[way] = step()
        flops[way] = counter.flops
    loss, gradient = results["reference"]
    for way, (other_loss, other_gradient) in results.items():
        assert gradient is not None
        assert other_gradient is not None
        error = ((other_gradient - gradient).norm() / gradient.norm()).item()
        print(f"  {way}: loss {other_loss:.6f}, gradient of the fake within {error:.1e} of the reference's", flush=True)
        if abs(other_loss - loss) > 1e-2 * loss or error > 5e-2:
            raise SystemExit(f"{way} does not compute what the reference does")
    return flops


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """Measure one network and return the table's rows."""
    print(f"{name}:")
    steps = {way: build_step(way, name, options) for way in WAYS}
    flops = check_equal_numerics(steps)
    timers = {way: functools.partial(time_step, step) for way, step in steps.items()}
    wall, cpu = time_repeats(timers, options.repeats)
    rate = matrix_rate()
    del steps, timers
    peaks = {way: peak_mib(build_step, way, name, options, threads=options.threads) for way in WAYS}
    rows = []
    for way in WAYS:
        faster, faster_range = speed_up(wall["reference"], wall[way])
        by_cpu, by_cpu_range = speed_up(cpu["reference"], cpu[way])
        cpu_s = statistics.median(cpu[way])
        spread = {"wall s": extremes(wall[way]), "CPU s": extremes(cpu[way])}
        spread |= {"speed-up": faster_range, "speed-up by CPU s": by_cpu_range}
        values = (name, options.batch, way, statistics.median(wall[way]), faster, cpu_s, by_cpu, peaks[way])
        shares = (peaks[way] / peaks["reference"], flops[way] / 1e9, flops[way] / cpu_s / rate)
        targets = TARGETS[name] if way != "reference" and options.batch == 4 else {}
        rows.append(row_of(COLUMNS, *values, *shares, spread=spread, targets=targets))
    return rows


def main() -> None:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of github.com/lbc12345/SeD")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--crop-px", type=int, default=256, help="side of the crops; the reference knows only 256")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="for ours, as the presets have it; faster on some CPUs, slower on others",
    )
    add_json_argument(parser)
    options = parser.parse_args()
    import_reference(options.reference)
    torch.set_num_threads(options.threads)
    rows = [row for name in options.networks for row in measure(name, options)]
    publish("discriminator", COLUMNS, rows, options)


if __name__ == "__main__":
    main()

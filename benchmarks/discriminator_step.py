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
import multiprocessing
import multiprocessing.connection
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.losses import VanillaLoss
from pipeline.models import PatchDiscriminator, UNetDiscriminator, load_reference_state_dict
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.phases import DiscriminatorPhase, StepInput

NETWORKS = {"P+SeD": ("SeD_P", PatchDiscriminator), "U+SeD": ("SeD_U", UNetDiscriminator)}
WAYS = ("reference", "apart", "shared")
Step = Callable[[], tuple[float, Tensor]]


def build_reference(name: str, folder: Path) -> nn.Module:
    """Build the release's discriminator from a checkout, with a fixed seed."""
    # The module imports CLIP for its extractor, which this benchmark does not use.
    if "clip" not in sys.modules:
        clip, model = types.ModuleType("clip"), types.ModuleType("clip.model")
        model.ModifiedResNet = nn.Module
        sys.modules |= {"clip": clip, "clip.model": model}
    sys.path.insert(0, str(folder))
    from models import sed

    torch.manual_seed(0)
    network = getattr(sed, NETWORKS[name][0])(3)
    for module in network.modules():
        if hasattr(module, "proj_out"):
            nn.init.normal_(module.proj_out.weight, std=0.1)
    return network


def build_step(way: str, name: str, options: argparse.Namespace) -> Step:
    """Return a step; it gives the discriminator's loss and the gradient of the fake image."""
    reference = build_reference(name, options.reference)
    generator = torch.Generator().manual_seed(1)
    shape = (options.batch, 3, options.crop_px, options.crop_px)
    real, fake = (torch.rand(shape, generator=generator) for _ in range(2))
    grid = options.crop_px // 16
    semantics = torch.rand((options.batch, 1024, grid, grid), generator=generator)
    network = reference
    if way != "reference":
        network = NETWORKS[name][1](64, semantic_channels=1024)
        load_reference_state_dict(network, reference.state_dict())
        if options.channels_last:
            layout = torch.channels_last
            network = network.to(memory_format=layout)
            real, fake, semantics = (part.contiguous(memory_format=layout) for part in (real, fake, semantics))
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, (0.9, 0.99))
    run = {"reference": three_passes, "apart": passes_apart, "shared": shared_pass}[way]
    return lambda: run(network, optimizer, real, fake.clone().requires_grad_(), semantics)


def three_passes(network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, semantics: Tensor):
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
    return (real_loss + fake_loss).item(), fake.grad


def passes_apart(network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, semantics: Tensor):
    """Run the trainer's step without sharing: a bare, frozen pass for the generator, then real and fake in one call."""
    network.requires_grad_(False)
    VanillaLoss().generator(network(fake, semantics)).backward()
    network.requires_grad_(True)
    return finish(phase_of(network, optimizer), real, fake.detach(), semantics), fake.grad


def shared_pass(network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, semantics: Tensor):
    """Run the trainer's step: one pass on the fake for both updates."""
    phase = phase_of(network, optimizer)
    _, gradient = phase.judge_once(fake, semantics)
    return finish(phase, real, fake.detach(), semantics), gradient


def phase_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> DiscriminatorPhase:
    """Build the trainer's phase for a network in one process."""
    return DiscriminatorPhase(DdpTrainable(network, network, optimizer, 0.0), VanillaLoss(), contextlib.nullcontext)


def finish(phase: DiscriminatorPhase, real: Tensor, fake: Tensor, semantics: Tensor) -> float:
    """Update the discriminator and return its loss."""
    scalars = phase.run(StepInput(lq=fake, gt=real, target=real, semantics=semantics), fake, 1e-4)
    return (scalars["discriminator/real"] + scalars["discriminator/fake"]).item()


def check_equal_numerics(steps: dict[str, Step]) -> dict[str, int]:
    """Run each way once, refuse to time what computes something else, and return the FLOPs of each.

    In float32 a rounding error may carry an activation across the kink of a LeakyReLU, which changes the gradient
    there by a factor; so the whole gradient is compared, not its worst pixel.
    """
    flops, results = {}, {}
    for way, step in steps.items():
        with FlopCounter() as counter:
            results[way] = step()
        flops[way] = counter.flops
    loss, gradient = results["reference"]
    for way, (other_loss, other_gradient) in results.items():
        error = ((other_gradient - gradient).norm() / gradient.norm()).item()
        print(f"  {way}: loss {other_loss:.6f}, gradient of the fake within {error:.1e} of the reference's", flush=True)
        if abs(other_loss - loss) > 1e-2 * loss or error > 1e-2:
            raise SystemExit(f"{way} does not compute what the reference does")
    return flops


def time_alternating(steps: dict[str, Step], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median seconds of each way, by the wall clock and on the CPU."""
    wall: dict[str, list[float]] = {way: [] for way in steps}
    cpu: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(repeats):
        for way, step in steps.items():
            start_wall, start_cpu = time.perf_counter(), time.process_time()
            step()
            wall[way].append(time.perf_counter() - start_wall)
            cpu[way].append(time.process_time() - start_cpu)
    print("  wall", wall, "\n  cpu", cpu, flush=True)
    return medians(wall), medians(cpu)


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each way."""
    return {way: statistics.median(values) for way, values in seconds.items()}


def measure_peak(way: str, name: str, options: argparse.Namespace, pipe: multiprocessing.connection.Connection) -> None:
    """Send the peak resident memory that steps add to an idle process with the network, in MiB."""
    torch.set_num_threads(options.threads)
    step = build_step(way, name, options)
    idle = resident_mib("VmRSS")
    # `ru_maxrss` would not do: a new process begins with its parent's. This starts the kernel's record again.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        step()
    pipe.send(resident_mib("VmHWM") - idle)


def resident_mib(kind: str) -> float:
    """Return this process's resident memory: "VmRSS" now, "VmHWM" at most so far. Linux counts in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def peak_mib(way: str, name: str, options: argparse.Namespace) -> float:
    """Measure one way in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measure_peak, args=(way, name, options, send))
    process.start()
    send.close()
    peak = receive.recv()
    process.join()
    return peak


def matrix_rate() -> float:
    """Measure this machine's float32 matrix rate, in FLOP a second on the CPU of one thread."""
    side = 1024
    one, other = torch.rand(side, side), torch.rand(side, side)
    seconds = []
    for _ in range(10):
        start = time.process_time()
        torch.mm(one, other)
        seconds.append(time.process_time() - start)
    return 2 * side**3 / min(seconds)


class FlopCounter(TorchDispatchMode):
    """Counts convolutions and matrix products; torch's own mode cannot follow `torch.autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator and add what it costs."""
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def measure(name: str, options: argparse.Namespace) -> list[str]:
    """Measure one network and return the table's rows."""
    print(f"{name}:")
    steps = {way: build_step(way, name, options) for way in WAYS}
    flops = check_equal_numerics(steps)
    wall, cpu = time_alternating(steps, options.repeats)
    rate = matrix_rate()
    del steps
    peaks = {way: peak_mib(way, name, options) for way in WAYS}
    print(f"  matrix rate {rate / 1e9:.0f} GFLOP a CPU second, peaks {peaks}", flush=True)
    return [
        f"| {name} | {way} | {wall[way]:.2f} | {wall['reference'] / wall[way]:.2f} | {cpu[way]:.2f} | "
        f"{cpu['reference'] / cpu[way]:.2f} | {peaks[way]:.0f} | {peaks[way] / peaks['reference']:.2f} | "
        f"{flops[way] / 1e9:.0f} | {flops[way] / cpu[way] / rate:.0%} |"
        for way in WAYS
    ]


def main() -> None:
    """Measure and print a table for docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of github.com/lbc12345/SeD")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--crop-px", type=int, default=256, help="side of the crops; the reference knows only 256")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true", help="for ours; faster on some CPUs, slower on others")
    options = parser.parse_args()
    if not (options.reference / "models" / "sed.py").is_file():
        raise SystemExit(f"{options.reference} is no checkout of the SeD release: it has no models/sed.py")
    torch.set_num_threads(options.threads)
    rows = [row for name in options.networks for row in measure(name, options)]
    print(f"\n{platform.machine()} CPU, {options.threads} thread(s), float32, torch {torch.__version__}, ", end="")
    print(f"batch {options.batch}, {options.crop_px} px, median of {options.repeats}\n")
    print(
        "| network | way | wall s | times as fast | CPU s | times as fast | peak MiB | of reference | GFLOP | ", end=""
    )
    print("of matrix rate |")
    print("|" + " --- |" * 10)
    print("\n".join(rows))


if __name__ == "__main__":
    main()

"""What the benchmarks share: time and peak memory of steps, and importing what they are measured against."""

from __future__ import annotations

import importlib.util
import multiprocessing
import multiprocessing.connection
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Step = Callable[[], Any]
Seconds = tuple[float, float]


def import_script(path: Path) -> Any:
    """Import one file of a checkout as a module, under its own name.

    Raises:
        SystemExit: There is no such file.
    """
    if not path.is_file():
        raise SystemExit(f"{path} is not there; give a checkout of the peer")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its classes may be pickled
    spec.loader.exec_module(module)
    return module


def import_reference(folder: Path) -> None:
    """Make the modules of a checkout of the SeD release importable.

    Raises:
        SystemExit: It is no such checkout.
    """
    if not (folder / "models" / "sed.py").is_file():
        raise SystemExit(f"{folder} is no checkout of the SeD release: it has no models/sed.py")
    # The module imports CLIP for its extractor, which the benchmarks do not use.
    if "clip" not in sys.modules:
        clip, model = types.ModuleType("clip"), types.ModuleType("clip.model")
        vars(model)["ModifiedResNet"] = nn.Module
        sys.modules |= {"clip": clip, "clip.model": model}
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def build_reference_discriminator(class_name: str, folder: Path) -> nn.Module:
    """Build a discriminator of the release with a fixed seed, and its zero projection moved as by training."""
    import_reference(folder)
    from models import sed  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    network = getattr(sed, class_name)(3)
    for module in network.modules():
        if hasattr(module, "proj_out"):
            nn.init.normal_(module.proj_out.weight, std=0.1)
    return network


def time_step(step: Step) -> Seconds:
    """Make a step; return its seconds by the wall clock and on the CPU."""
    start_wall, start_cpu = time.perf_counter(), time.process_time()
    step()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start_wall, time.process_time() - start_cpu


def time_repeats(
    timers: Mapping[str, Callable[[], Seconds]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Let methods take turns, each a `time_step` of its own; return their seconds by the wall clock and on the CPU."""
    wall: dict[str, list[float]] = {method: [] for method in timers}
    cpu: dict[str, list[float]] = {method: [] for method in timers}
    for _ in range(repeats):
        for method, timer in timers.items():
            wall_s, cpu_s = timer()
            wall[method].append(wall_s)
            cpu[method].append(cpu_s)
    return wall, cpu


class StepProcess:
    """A step in a process of its own, with its own allocator, that is made and timed on request.

    Attributes:
        first: What the first step returned; it is not timed.

    Args:
        build: A function of a module; called there, it gives the step.
        *arguments: Its arguments.
        threads: Of that process.
        warmup: Steps before the timed ones, the first among them.
    """

    def __init__(self, build: Callable[..., Step], *arguments: Any, threads: int, warmup: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_make_steps, args=(build, arguments, threads, warmup, theirs))
        self._process.start()
        theirs.close()
        self.first: Any = self._pipe.recv()

    def time(self) -> Seconds:
        """Have a step made there; see `time_step`."""
        self._pipe.send(None)
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _make_steps(
    build: Callable[..., Step],
    arguments: tuple[Any, ...],
    threads: int,
    warmup: int,
    pipe: multiprocessing.connection.Connection,
) -> None:
    torch.set_num_threads(threads)
    step = build(*arguments)
    first, *_ = [step() for _ in range(warmup)]
    pipe.send(first)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(time_step(step))


def peak_mib(build: Callable[..., Step], *arguments: Any, threads: int, steps: int = 2) -> float:
    """Return the peak memory that steps add to an idle process that holds the networks, in MiB.

    On a GPU that of the device, as torch's allocator counts it; else the resident memory.

    Args:
        build: A function of a module; called in a process of its own, it gives the step.
        *arguments: Its arguments.
        threads: Of that process.
        steps: How many to run.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(build, arguments, threads, steps, send))
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def _measure_peak(build: Callable[..., Step], arguments: tuple[Any, ...], threads: int, steps: int, pipe: Any) -> None:
    torch.set_num_threads(threads)
    step = build(*arguments)
    if torch.cuda.is_initialized():
        pipe.send(_device_peak_mib(step, steps))
        return
    idle = resident_mib("VmRSS")
    # `ru_maxrss` would not do: a new process begins with its parent's. This starts the kernel's record again.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(steps):
        step()
    pipe.send(resident_mib("VmHWM") - idle)


def _device_peak_mib(step: Step, steps: int) -> float:
    idle = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(steps):
        step()
    return (torch.cuda.max_memory_allocated() - idle) / 2**20


def resident_mib(kind: str) -> float:
    """Return this process's resident memory: "VmRSS" now, "VmHWM" at most so far. Linux counts in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


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

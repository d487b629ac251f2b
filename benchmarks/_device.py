"""Time, memory, kernels and idle share of steps on a device, and what the device itself can do."""

from __future__ import annotations

import functools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Row = dict[str, Any]
"""One line of a table: column to value."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a step: the median over rounds, and the fastest and slowest round."""

    median_ms: float
    least_ms: float
    most_ms: float

    @property
    def columns(self) -> Row:
        """For a table."""
        return {"ms": round(self.median_ms, 2), "min to max": f"{self.least_ms:.2f} to {self.most_ms:.2f}"}


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def time_rounds(step: Callable[[], Any], device: str, *, rounds: int, steps: int, warmup: int = 3) -> Timing:
    """Time rounds of several steps each; within a round the host runs ahead of the device, as in training."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise(device)
        seconds.append((time.perf_counter() - start) / steps)
    return Timing(*(1e3 * pick(seconds) for pick in (statistics.median, min, max)))


def peak_gib(step: Callable[[], Any], device: str) -> float | None:
    """Return the most memory that a step and all that it works on take, as torch's allocator counts it."""
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def profile_kernels(step: Callable[[], Any], device: str, *, steps: int = 2) -> tuple[int | None, float | None]:
    """Return the number of kernels of a step and the share of its time in which the device runs none."""
    if device != "cuda":
        return None, None
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        wall_us = 1e6 * (time.perf_counter() - start)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events() or ()
        if event.device_type == DeviceType.CUDA
    ]
    return len(spans) // steps, round(1 - _covered(spans) / wall_us, 3)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of a union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def describe_device(device: str) -> str:
    """Return name, driver and torch, in one line."""
    if device != "cuda":
        return f"{platform.machine()} CPU, torch {torch.__version__}"
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {versions}"


def matrix_rates(device: str, side: int) -> dict[str, float]:
    """Return the TFLOP/s of square matrix products on random data: the bound of what convolutions reach."""
    rates = {}
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("TF32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        timing = time_rounds(functools.partial(torch.mm, one, other), device, rounds=3, steps=5)
        torch.backends.cuda.matmul.allow_tf32 = before
        rates[name] = 2e-9 * side**3 / timing.median_ms
    return rates


def copy_rate(device: str, num_bytes: int) -> float:
    """Return the TB/s of a copy on the device, counting bytes read and written."""
    one, other = (torch.empty(num_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    timing = time_rounds(lambda: one.copy_(other), device, rounds=3, steps=5)
    return 2e-9 * num_bytes / timing.median_ms

"""How busy the machines of a run are, between two reports.

MLflow's own monitor writes to its server from a thread on each machine, and to nothing else: no record on the disk, no
other tracker, no place in the run. These numbers come with a report, from all machines in one reduction.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor

_MIB = 1 << 20
_GIB = 1 << 30
# MLflow's own names: its UI shows what begins with `system/` under "System metrics".
_OF_MACHINE = (
    "cpu_utilization_percentage",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "network_receive_megabytes_per_second",
    "network_transmit_megabytes_per_second",
    "gpu_utilization_percentage",
    "gpu_power_usage_watts",
)
_OF_PROCESS = ("process_gib", "gpu_peak_gib")


class MachineLoad:
    """Measures this process's machine and device, for all ranks together.

    Args:
        rank: Of this process.
        world_size: Of the run.
        device: That it trains on.
        folder: Of the run; its disk is measured.
        sum_over_ranks: Sums a tensor element-wise over all ranks.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        device: torch.device,
        folder: Path,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        self._rank = rank
        self._world_size = world_size
        self._device = device
        self._folder = folder
        self._sum = sum_over_ranks
        self._process = psutil.Process()
        psutil.cpu_percent()  # what it returns next is the mean since now
        self._network, self._since_s = psutil.net_io_counters(), time.monotonic()

    def read(self) -> dict[str, float]:
        """Return the load since the last call. All ranks must call.

        Returns:
            `system/...`, or `system/nodeN/...` where the run has several machines: means over the machine's ranks.
            `memory/...`: of the process that holds most.
        """
        rows = torch.zeros(self._world_size, 1 + len(_OF_MACHINE) + len(_OF_PROCESS), dtype=torch.float64)
        rows[self._rank] = torch.tensor([float(node_number()), *self._of_machine(), *self._of_process()])
        rows = self._sum(rows)
        nodes, machine, process = rows[:, 0], rows[:, 1 : 1 + len(_OF_MACHINE)], rows[:, 1 + len(_OF_MACHINE) :]
        numbers = sorted({int(node) for node in nodes.tolist()})
        values = {}
        for number in numbers:
            start = "system/" if len(numbers) == 1 else f"system/node{number}/"
            means = machine[nodes == number].mean(0).tolist()
            values |= {start + name: value for name, value in zip(_OF_MACHINE, means, strict=True)}
        largest = process.amax(0).tolist()
        values |= {f"memory/{name}": value for name, value in zip(_OF_PROCESS, largest, strict=True)}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _of_machine(self) -> list[float]:
        before, before_s = self._network, self._since_s
        self._network, self._since_s = psutil.net_io_counters(), time.monotonic()
        elapsed_s = max(self._since_s - before_s, 1e-9)
        has_network = before is not None and self._network is not None
        received, sent = (
            (getattr(self._network, name) - getattr(before, name)) / _MIB / elapsed_s if has_network else math.nan
            for name in ("bytes_recv", "bytes_sent")
        )
        return [
            psutil.cpu_percent(),
            psutil.virtual_memory().percent,
            psutil.disk_usage(str(self._folder)).percent,
            received,
            sent,
            *self._of_gpu(),
        ]

    def _of_gpu(self) -> tuple[float, float]:
        """Return utilization in percent and power in watts; NaN without a GPU, or without nvidia-ml-py."""
        if self._device.type != "cuda":
            return math.nan, math.nan
        try:
            return float(torch.cuda.utilization(self._device)), torch.cuda.power_draw(self._device) / 1000
        except (ImportError, RuntimeError):  # without the library, or a driver that does not say
            return math.nan, math.nan

    def _of_process(self) -> tuple[float, float]:
        resident = self._process.memory_info().rss / _GIB
        if self._device.type != "cuda":
            return resident, math.nan
        peak = torch.cuda.max_memory_allocated(self._device) / _GIB
        torch.cuda.reset_peak_memory_stats(self._device)
        return resident, peak


def node_number() -> int:
    """Return which machine of the run this is, as the launcher says; 0 where it does not."""
    return int(os.environ.get("GROUP_RANK") or os.environ.get("NODE_RANK") or 0)

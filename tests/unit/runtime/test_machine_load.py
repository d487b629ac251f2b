"""Load of the machines: means over a machine's ranks, and one group of values for each machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.runtime.machine_load import MachineLoad

CPU = torch.device("cpu")
CPU_LOAD = 1
"""Column of the CPU's load, after that of the machine's number."""


def read(others: Tensor, monkeypatch: pytest.MonkeyPatch, node: str = "0") -> dict[str, float]:
    """What rank 0 reads where the other ranks measure `others`, a row each."""
    monkeypatch.setenv("GROUP_RANK", node)

    def add_others(rows: Tensor) -> Tensor:
        rows = rows.clone()
        assert rows[1:].eq(0).all()
        rows[1:] = others
        return rows

    return MachineLoad(0, 1 + len(others), CPU, Path(), add_others).read()


def row(node: int, cpu_percent: float, process_gib: float = 0.25) -> list[float]:
    return [node, cpu_percent, 20.0, 30.0, 0.0, 0.0, float("nan"), float("nan"), process_gib, float("nan")]


def test_one_machine_has_plain_names_and_no_values_of_a_gpu_that_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = read(torch.empty(0, 10), monkeypatch)
    assert set(values) == {
        "memory/process_gib",
        *(f"system/{name}_percentage" for name in ("cpu_utilization", "system_memory_usage", "disk_usage")),
        *(f"system/network_{way}_megabytes_per_second" for way in ("receive", "transmit")),
    }
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert 0 < values["system/system_memory_usage_percentage"] < 100
    assert 0.01 < values["memory/process_gib"] < 100


def test_every_machine_has_means_over_its_ranks_and_memory_is_of_the_largest_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = torch.tensor([row(0, 40.0), row(1, 60.0), row(1, 80.0, 512.0)], dtype=torch.float64)
    values = read(others, monkeypatch)
    assert values["system/node1/cpu_utilization_percentage"] == 70.0
    assert values["memory/process_gib"] == 512.0
    assert 20.0 <= values["system/node0/cpu_utilization_percentage"] <= 70.0  # half of it is this machine's own
    assert not [name for name in values if name.startswith("system/cpu")]
    assert not [name for name in values if "gpu" in name]


def test_time_between_two_readings_is_what_they_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    sums: list[Tensor] = []
    load = MachineLoad(0, 1, CPU, Path(), lambda rows: sums.append(rows) or rows)
    load.read()
    end, total = torch.zeros(1), torch.ones(64, 64)
    for _ in range(2000):  # a core at work
        end += (total @ total).sum() * 0
    load.read()
    assert sums[1][0, CPU_LOAD] > 0

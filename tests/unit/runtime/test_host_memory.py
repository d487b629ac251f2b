"""A process on a CPU keeps the memory that it frees, unless its allocator was set up from outside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.runtime.host_memory import keep_freed_memory

WARMUP_ROUNDS, ROUNDS, MIB = 16, 8, 48
MEASURE = f"""
import resource, sys
import torch
from pipeline.config.running import RuntimeConfig
from pipeline.runtime.backend import Backend

if sys.argv[1] == "trains":
    backend = Backend(RuntimeConfig("float32", False, False, "separate", deterministic=True), batch_size=1)
for round in range({WARMUP_ROUNDS} + {ROUNDS}):
    if round == {WARMUP_ROUNDS}:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({MIB} * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(way: str) -> int:
    """Take and give back one large map several times; return how many pages were entered.

    The first times do not count: aligned memory leaves a gap beside what was freed, until the gaps have grown together.
    """
    command = [sys.executable, "-c", MEASURE, way]
    environment = {name: value for name, value in os.environ.items() if not is_of_the_allocator(name)}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    return int(run.stdout)


def is_of_the_allocator(name: str) -> bool:
    return name.startswith("MALLOC_") or name in {"GLIBC_TUNABLES", "LD_PRELOAD"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of another system")
def test_freed_memory_is_not_entered_again_where_a_backend_trains() -> None:
    pages = MIB * 2**20 // 4096
    assert count_faults("imports alone") >= ROUNDS * pages
    assert count_faults("trains") < pages


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_an_allocator_set_up_from_outside_stays(name: str) -> None:
    assert not keep_freed_memory({name: "x"})

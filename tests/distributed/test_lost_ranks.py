"""A rank that dies or hangs, at a vote or inside a step: the others end soon and name it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from harness import runtime_config
from torch import nn

import pipeline.runtime.roll_call
from pipeline.errors import RankLostError
from pipeline.runtime.backend import Backend

HANG_S = 90


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(HANG_S)


def vote(backend: Backend) -> Callable[[], object]:
    return lambda: backend.any_rank(False)


def step(backend: Backend) -> Callable[[], object]:
    network = nn.Linear(4, 4)
    trainable = backend.wrap(network, torch.optim.Adam(network.parameters(), fused=True))
    return lambda: trainable.backward(trainable(torch.ones(1, 4)).sum())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


FAULTS = {
    "dies in a vote": (die, vote),
    "hangs in a vote": (hang, vote),
    "hangs in a step": (hang, step),
    "dies, connected on demand": (die, vote),
}


def on_rank(rank: int, port: int, fault: str, lost: int, folder: str) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 3, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    if fault.endswith("on demand"):
        os.environ["TORCH_GLOO_LAZY_INIT"] = "1"  # as docs/scale.md recommends to many ranks
    torch.set_num_threads(1)
    pipeline.runtime.roll_call.WINDOW_S = 8.0  # on a busy machine the others notice seconds apart
    backend = Backend(runtime_config(timeout_s=3), batch_size=3)
    misbehave, collective_of = FAULTS[fault]
    collective = collective_of(backend)
    collective()
    if rank == lost:
        misbehave()
    start_s = time.monotonic()
    try:
        with backend.naming_lost_ranks():
            collective()
    except RankLostError as error:
        Path(folder, f"{rank}.txt").write_text(f"{time.monotonic() - start_s} {error}")
    os._exit(1)  # as the job does


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        ("dies in a vote", 2),
        pytest.param("hangs in a vote", 0, marks=pytest.mark.slow),
        pytest.param("hangs in a step", 1, marks=pytest.mark.slow),
        pytest.param("dies, connected on demand", 1, marks=pytest.mark.slow),
    ],
)
def test_rank_when_lost_is_named_by_the_others(tmp_path: Path, fault: str, lost: int) -> None:
    # Not by `run_ranks`, which ends all when the first ends: here the others must end by themselves.
    args = (free_port(), fault, lost, str(tmp_path))
    ranks = mp.start_processes(on_rank, args, nprocs=3, join=False, start_method="spawn").processes
    for rank, process in enumerate(ranks):
        process.join(0 if rank == lost else HANG_S)
    still_there = [rank for rank, process in enumerate(ranks) if process.is_alive()]
    for process in ranks:
        process.kill()
    assert set(still_there) <= {lost}
    said = {int(path.stem): path.read_text() for path in tmp_path.glob("*.txt")}
    assert said
    assert lost not in said
    for text in said.values():
        seconds, _, message = text.partition(" ")
        assert float(seconds) < 30
        assert f"lost rank {lost} on {socket.gethostname()}: gone, or not at the step" in message
        assert "runtime.timeout_s=3" in message


def test_error_of_another_kind_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        raise_inside(Backend(runtime_config(), batch_size=3), RuntimeError("shape mismatch"))


def raise_inside(backend: Backend, error: Exception) -> None:
    with backend.naming_lost_ranks():
        raise error

"""Training processes that start in a moment: forked from a server that has imported everything and done nothing else.

A training process spends seconds on imports; a test that kills dozens cannot. Each runs `jobs.train_sed.main` as the
job does, with the ranks that a launcher would give it, and without MLflow unless its environment names a store.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_LATE = ["open_clip", "torch._inductor", "matplotlib.backends.backend_agg", "matplotlib.style", "pipeline.run.training"]
_PRELOAD = ["jobs.train_sed", "warm", *_LATE]  # late: what a run imports on its way, 5 s of it
_FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


@dataclass(frozen=True)
class Life:
    """How a process lives.

    Attributes:
        arguments: Of `jobs/train_sed.py`.
        log: File for its standard error.
        environment: More variables.
        dies_at_file_event: Kill yourself, as SIGKILL does, before touching the run's files for the n-th time.
        waits_before: Part of a path; wait for a kill before touching a file of the run whose path has it, or another
            one after that.
        keys: File to note the keys of each batch in; None for none.
    """

    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    dies_at_file_event: int | None = None
    waits_before: str = ""
    keys: Path | None = None


def start(life: Life, world_size: int = 1) -> list[BaseProcess]:
    """Start the processes of one call; all are of this machine."""
    _import_beforehand()
    port = _free_port()
    ranks = [_SERVER.Process(target=_live, args=(life, rank, world_size, port)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    return ranks


def _import_beforehand() -> None:
    """Restart the server if it has other imports: a process has one, which another test file may have started."""
    server: Any = forkserver._forkserver  # pyright: ignore[reportAttributeAccessIssue]
    if server._preload_modules != _PRELOAD:
        server._stop()  # what Python's own tests end it with; nobody's processes run between two tests
        _SERVER.set_forkserver_preload(_PRELOAD)


def join(ranks: Sequence[BaseProcess], timeout_s: float = 120.0) -> list[int | None]:
    """Wait until all have ended by themselves; return their exit codes, None for one that had to be killed."""
    deadline_s = time.monotonic() + timeout_s
    for process in ranks:
        process.join(max(0.0, deadline_s - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _live(life: Life, rank: int, world_size: int, port: int) -> None:
    os.dup2(os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if world_size > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= life.environment
    _prepare(life, rank)
    from jobs.terminal import EXIT_FAULTS, run_job
    from jobs.train_sed import main

    code = EXIT_FAULTS
    try:
        code = run_job(main, list(life.arguments))
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())  # which multiprocessing does not call
        sys.stderr.flush()
        os._exit(code)


def _prepare(life: Life, rank: int) -> None:
    import torch

    import pipeline.run.record
    import pipeline.run.session
    import pipeline.runtime.roll_call
    from pipeline.tracking import Trackers

    torch.set_num_threads(1)
    pipeline.runtime.roll_call.WINDOW_S = 1.0
    if "MLFLOW_TRACKING_URI" not in life.environment:
        pipeline.run.record.open_trackers = lambda *_: Trackers()
    if life.keys is not None:
        pipeline.run.session.batches = _noting(pipeline.run.session.batches, life.keys.with_suffix(f".{rank}"))
    if life.dies_at_file_event is not None and rank == 0:
        sys.addaudithook(_Reaper(life.dies_at_file_event))
    if life.waits_before:
        sys.addaudithook(_Brake(life.waits_before))


class _Reaper:
    """Counts what the process does to the run's files, and kills it before the n-th."""

    def __init__(self, last: int) -> None:
        self._left = last

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if _touches(event, args, "run-"):
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class _Brake:
    """Stops a thread that is about to touch certain files, and then training before it touches any other of the run.

    Threads that send what came earlier run on.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._is_on = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        self._is_on |= _touches(event, args, self._part)
        is_training = threading.current_thread() is threading.main_thread()
        while _touches(event, args, self._part) or (self._is_on and is_training and _touches(event, args, "run-")):
            time.sleep(1)


def _touches(event: str, args: tuple[Any, ...], part: str) -> bool:
    return event in _FILE_EVENTS and bool(args) and part in str(args[0])


def _noting(batches: Any, file: Path) -> Any:
    def noted(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in batches(*args, **options):
            with file.open("a") as stream:
                stream.write(",".join(batch.keys) + "\n")
            yield batch

    return noted

"""Functions in several processes at one time, as people start several jobs."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_START_AFTER_S = 10.0


def forked(function: Callable[..., None], arguments: tuple[Any, ...], preload: Sequence[str]) -> BaseProcess:
    """Start a module-level function in a process that has imports behind it, and our variables and folder.

    A Python process has one fork server: that of an earlier test has that test's variables, folder and modules.

    Args:
        function: What the process calls.
        arguments: Of the call.
        preload: Modules that the server imports, where it is not yet there.
    """
    context: Any = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    process = context.Process(target=_call, args=(dict(os.environ), Path.cwd(), function, arguments))
    process.start()
    return process


def run_at_once(function: Callable[..., None], arguments: Sequence[tuple[Any, ...]], preload: Sequence[str]) -> None:
    """Call a module-level function in as many processes at one moment; all of them must succeed.

    Args:
        function: What each process calls.
        arguments: Of each call.
        preload: See `forked`.
    """
    start_s = time.time() + _START_AFTER_S
    processes = [forked(_call_at, (start_s, function, some), preload) for some in arguments]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _call(variables: dict[str, str], folder: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    function(*arguments)


def _call_at(start_s: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    time.sleep(max(0.0, start_s - time.time()))
    function(*arguments)

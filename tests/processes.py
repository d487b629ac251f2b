"""Functions in several processes at one time, as people start several jobs."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_START_AFTER_S = 10.0


def run_at_once(function: Callable[..., None], arguments: Sequence[tuple[Any, ...]], preload: Sequence[str]) -> None:
    """Call a module-level function in as many processes at one moment; all of them must succeed.

    Args:
        function: What each process calls.
        arguments: Of each call.
        preload: Modules that are imported once, before the processes begin.
    """
    context: Any = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    start_s = time.time() + _START_AFTER_S
    # The server of an earlier test has that test's variables and folder.
    here = (dict(os.environ), Path.cwd())
    processes = [context.Process(target=_call_at, args=(start_s, *here, function, some)) for some in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _call_at(
    start_s: float, variables: dict[str, str], folder: Path, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    time.sleep(max(0.0, start_s - time.time()))
    function(*arguments)

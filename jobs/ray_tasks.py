"""All that this project asks of Ray: a session, and a map with bounded work in flight.

A job starts a quiet Ray of its own on this machine, or joins a cluster when it runs under `ray job submit` or
finds `RAY_ADDRESS` set. Tasks must be idempotent: Ray runs one again when its worker or machine dies. Every
result is looked at, and the first error stops the job. SIGTERM drains: running tasks finish, no more are
started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from jobs.terminal import EXIT_FAULTS, EXIT_TERMINATED, JobStoppedError, say
from shards.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

# Results are small; Ray would otherwise take 30% of the memory, and refuses less than 75 MiB.
_OBJECT_STORE_BYTES = 100 * 2**20
_TASKS_PER_SLOT = 2
_MAX_RETRIES = 3
_WAIT_S = 1.0


@dataclass
class RaySession:
    """A running Ray, to map functions over."""

    description: str
    """Where the tasks run, in words."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to drain."""

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        memory_bytes: int = 0,
        max_in_flight: int | None = None,
    ) -> Iterator[tuple[T, R]]:
        """Call a function on every item, somewhere in the cluster.

        At most two tasks a slot are in flight, whatever the number of items, and as many more when machines
        join.

        Args:
            function: Of a module that workers can import; idempotent. State to keep between its calls in one
                worker process, such as a network, may be cached in that module.
            items: Small and picklable.
            num_cpus: CPUs a task takes.
            num_gpus: GPUs a task takes.
            memory_bytes: Memory a task needs; it is started only where that much is free.
            max_in_flight: Fixed limit instead of two a slot.

        Yields:
            Items with their results, as they finish.

        Raises:
            JobStoppedError: SIGTERM came and the running tasks have finished, or Ray lost a task for good.
            InputError: What a task raised; so with every other error of a task.
            OSError: Storage failed again and again.
        """
        task = ray.remote(function).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=_clamp_memory(memory_bytes),
            max_retries=_MAX_RETRIES,
            retry_exceptions=[OSError],
        )
        waiting: dict[Any, T] = {}
        rest = iter(items)
        exhausted = False
        try:
            while True:
                limit = max_in_flight or _num_slots(num_cpus, num_gpus) * _TASKS_PER_SLOT
                while not exhausted and not self.stop.is_set() and len(waiting) < limit:
                    try:
                        item = next(rest)
                    except StopIteration:
                        exhausted = True
                        break
                    waiting[task.remote(item)] = item
                if not waiting:
                    break
                finished, _ = ray.wait(list(waiting), num_returns=1, timeout=_WAIT_S, fetch_local=False)
                for reference in finished:
                    yield waiting.pop(reference), _result(reference)
        finally:
            for reference in waiting:
                ray.cancel(reference)
        if self.stop.is_set() and not exhausted:
            raise JobStoppedError(
                "stopped by SIGTERM after the running tasks finished; run the same command again to go on",
                EXIT_TERMINATED,
            )


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # The remote traceback is for us; people get the error that the task raised.
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
    except RayError as error:
        first_line = str(error).strip().splitlines()[0]
        raise JobStoppedError(
            f"Ray lost a task {_MAX_RETRIES + 1} times: {type(error).__name__}: {first_line}\n"
            "what was finished is kept; run the same command again to go on",
            EXIT_FAULTS,
        ) from error


def _num_slots(num_cpus: float, num_gpus: float) -> int:
    resources = ray.cluster_resources()
    slots = [resources.get("CPU", 1.0) / num_cpus if num_cpus else float("inf")]
    slots += [resources.get("GPU", 0.0) / num_gpus] if num_gpus else []
    return max(1, int(min(slots)))


def _clamp_memory(memory_bytes: int) -> int | None:
    # Ray waits for ever for more than any machine has; better to try with all of the largest.
    largest = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory_bytes, int(largest)) or None


@contextlib.contextmanager
def ray_session(*, num_cpus: int | None = None) -> Iterator[RaySession]:
    """Start or join Ray for the length of a block.

    Args:
        num_cpus: CPUs of an own Ray; None for all of this machine. Without effect on a cluster that is
            joined.

    Yields:
        The session.

    Raises:
        InputError: `RAY_ADDRESS` names a cluster that does not answer, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address)
        description = f"the Ray cluster at {address} ({_num_slots(1.0, 0.0)} CPUs)"
    else:
        _start(num_cpus)
        description = f"a local Ray ({_num_slots(1.0, 0.0)} CPUs)"
    session = RaySession(description)
    try:
        with _drain_on_sigterm(session.stop):
            yield session
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise InputError(
            f"no Ray cluster answers; got {str(error).splitlines()[0]}; at RAY_ADDRESS={address}; "
            "start one with `ray start --head`, or unset RAY_ADDRESS to use this machine alone"
        ) from error


def _start(num_cpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Says in advance what a coming release does anyway; without it every start prints a warning about GPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"a local Ray does not start; got {str(error).splitlines()[0]}; "
            "look at /tmp/ray/session_latest/logs, free memory and disk, and try again"
        ) from error


@contextlib.contextmanager
def _drain_on_sigterm(stop: threading.Event) -> Iterator[None]:
    def drain(signum: int, frame: FrameType | None) -> None:
        say("SIGTERM: finishing the tasks that run, starting no more")
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, drain)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

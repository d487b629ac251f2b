"""Everything that this project uses of Ray: a session, and a map with bounded work in flight.

A job starts a quiet local Ray on this machine, or joins a cluster when it runs under `ray job submit` or
finds `RAY_ADDRESS` set. Tasks must be idempotent: Ray runs one again when its worker or machine dies. Every
result is checked, and the first error stops the job. When no task is left to start, one that takes far
longer than the others is started a second time, and the first result counts. SIGTERM drains: running tasks finish,
no more are started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from jobs.ray_head import watching_head
from jobs.terminal import EXIT_FAULTS, EXIT_TERMINATED, Handler, JobStoppedError, handling_sigterm
from pipeline.progress import Progress, say
from shards.errors import InputError
from shards.format.endpoints import ANSWER_TIMEOUT_S
from shards.secrets import without_secrets
from shards.write.execution import Executor

T = TypeVar("T")
R = TypeVar("R")

# Results are small; Ray would otherwise take 30% of the memory, and refuses less than 75 MiB.
_OBJECT_STORE_BYTES = 100 * 2**20
_TASKS_PER_SLOT = 2
_MAX_RETRIES = 3
_WAIT_S = 1.0
# A straggler takes this many times the median of the others.
_STRAGGLER_FACTOR = 3.0
_CANCEL_S = 5.0
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>\[[^\]]+\]|[^/:]+):(?P<port>\d{1,5})")
# The preface and an empty SETTINGS frame; gRPC, which Ray speaks, answers with settings of its own.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass
class RaySession:
    """A running Ray, to map functions over."""

    description: str
    """Where the tasks run, in words."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to drain."""
    double_after_s: float = 30.0
    """No task is started a second time before it has run this long."""

    @property
    def executor(self) -> Executor:
        """This session as the library's executor, with the terminal's progress display."""
        return Executor(self.map, Progress, say)

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

        At most two tasks per slot are in flight, whatever the number of items; slots are counted again as machines
        join.

        Args:
            function: Of a module that workers can import; idempotent. State to keep between its calls in one
                worker process, such as a network, may be cached in that module.
            items: Small and picklable.
            num_cpus: CPUs per task.
            num_gpus: GPUs per task.
            memory_bytes: Memory a task needs; it is started only where that much is free.
            max_in_flight: Fixed limit instead of two per slot.

        Yields:
            Items with their results, as they finish.

        Raises:
            JobStoppedError: SIGTERM arrived and the running tasks have finished, or Ray lost a task permanently.
            InputError: Raised by a task, as is any other error of a task.
            OSError: Storage kept failing.
        """
        remote = ray.remote(function)
        options = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "memory": _clamp_memory(memory_bytes),
            "max_retries": _MAX_RETRIES,
            "retry_exceptions": [OSError],
        }
        # A second attempt goes to another machine, if there is one: the first machine may be the slow part.
        again = remote.options(**options, scheduling_strategy="SPREAD")
        flight: _Flight[T] = _Flight(remote.options(**options), again, self.double_after_s)
        rest = iter(items)
        exhausted = False
        try:
            while True:
                num_slots = _num_slots(num_cpus, num_gpus)
                limit = max_in_flight or num_slots * _TASKS_PER_SLOT
                while not exhausted and not self.stop.is_set() and len(flight) < limit:
                    try:
                        flight.start(next(rest))
                    except StopIteration:
                        exhausted = True
                if not flight:
                    break
                if exhausted:
                    flight.double_stragglers(min(num_slots, limit) - len(flight))
                yield from flight.land()
        finally:
            flight.cancel()
        if self.stop.is_set() and not exhausted:
            raise JobStoppedError(
                "stopped by SIGTERM after the running tasks finished; rerun the same command to resume",
                EXIT_TERMINATED,
            )


@dataclass
class _Attempt(Generic[T]):
    """One attempt at an item."""

    item: T
    started_s: float
    other: Any = None
    """Reference of the other attempt, if there are two."""


class _Flight(Generic[T]):
    """The tasks that were started and whose results are not collected yet."""

    def __init__(self, task: Any, again: Any, double_after_s: float) -> None:
        self._task = task
        self._again = again
        self._double_after_s = double_after_s
        self._attempts: dict[Any, _Attempt[T]] = {}
        self._durations_s: list[float] = []
        self._cancelled: list[Any] = []

    def __len__(self) -> int:
        return len(self._attempts)

    def start(self, item: T) -> None:
        """Start a task."""
        self._attempts[self._task.remote(item)] = _Attempt(item, time.monotonic())

    def double_stragglers(self, num_free: int) -> None:
        """Start a second attempt at tasks that take far longer than finished ones, on at most `num_free` slots."""
        if num_free < 1 or not self._durations_s:
            return
        limit_s = max(self._double_after_s, _STRAGGLER_FACTOR * statistics.median(self._durations_s))
        now_s = time.monotonic()
        late = [
            reference
            for reference, attempt in self._attempts.items()
            if attempt.other is None and now_s - attempt.started_s > limit_s
        ]
        for reference in late[:num_free]:
            first = self._attempts[reference]
            first.other = self._again.remote(first.item)
            self._attempts[first.other] = _Attempt(first.item, now_s, reference)
            say(f"a task takes longer than {limit_s:.0f} s: it runs a second time, and the first result counts")

    def land(self) -> Iterator[tuple[T, Any]]:
        """Wait briefly; yield an item with its result if one has finished, and cancel the other attempt at it."""
        finished, _ = ray.wait(list(self._attempts), num_returns=1, timeout=_WAIT_S, fetch_local=False)
        for reference in finished:
            attempt = self._attempts.pop(reference)
            self._durations_s.append(time.monotonic() - attempt.started_s)
            if attempt.other is not None:
                self._attempts.pop(attempt.other)
                self._cancelled.append(attempt.other)
                ray.cancel(attempt.other)
            yield attempt.item, _result(reference)

    def cancel(self) -> None:
        """Cancel what still runs; wait briefly for cancelled attempts, which remove their temporary files."""
        for reference in self._attempts:
            ray.cancel(reference)
        if self._cancelled:
            ray.wait(self._cancelled, num_returns=len(self._cancelled), timeout=_CANCEL_S, fetch_local=False)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # The remote traceback is of no use to a user; the error that the task raised is.
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
    except RayError as error:
        first_line = str(error).strip().splitlines()[0]
        raise JobStoppedError(
            f"Ray lost a task permanently: {type(error).__name__}: {first_line}\n"
            "what was finished is kept; rerun the same command to resume",
            EXIT_FAULTS,
        ) from error


def _num_slots(num_cpus: float, num_gpus: float) -> int:
    resources = ray.cluster_resources()
    slots = [resources.get("CPU", 1.0) / num_cpus if num_cpus else float("inf")]
    slots += [resources.get("GPU", 0.0) / num_gpus] if num_gpus else []
    return max(1, int(min(slots)))


def _clamp_memory(memory_bytes: int) -> int | None:
    # Ray waits forever for more memory than any machine has: request at most all of the largest one.
    largest = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
    return min(memory_bytes, int(largest)) or None


@contextlib.contextmanager
def ray_session(*, num_cpus: int | None = None) -> Iterator[RaySession]:
    """Start or join Ray for the length of a block.

    Args:
        num_cpus: CPUs of a local Ray; None for all of this machine. Ignored when a cluster is joined.

    Yields:
        The session.

    Raises:
        InputError: `RAY_ADDRESS` names an unreachable cluster, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address)
        description = f"the Ray cluster at {_shown(address)} ({_num_slots(1.0, 0.0)} CPUs)"
    else:
        _start(num_cpus)
        description = f"a local Ray ({_num_slots(1.0, 0.0)} CPUs)"
    session = RaySession(description)
    try:
        with handling_sigterm(_drain(session.stop)), _watching(address):
            yield session
    finally:
        ray.shutdown()


def _watching(address: str | None) -> contextlib.AbstractContextManager[None]:
    """Watch the head of a joined cluster; a client (`ray://`) is not connected to it, and a local Ray has no other."""
    if not address or address.startswith("ray://"):
        return contextlib.nullcontext()
    return watching_head(ray.get_runtime_context().gcs_address)


def _join(address: str) -> None:
    try:
        _check_answers(address)
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = (without_secrets(error, _as_url(address)) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"Ray cluster unreachable; got {reason}; at RAY_ADDRESS={_shown(address)}; "
            "start one with `ray start --head`, or unset RAY_ADDRESS to use this machine alone"
        ) from error


def _as_url(address: str) -> str:
    return address if "://" in address else f"ray://{address}"


def _shown(address: str) -> str:
    """Return an address without user and password, which Ray does not use."""
    return without_secrets(address, _as_url(address))


def _check_answers(address: str) -> None:
    """Connect as Ray would, and wait for the first frame of its protocol: its own client tries for 13 minutes.

    Raises:
        OSError: The address is unreachable, or does not belong to Ray.
    """
    match = _HOST_AND_PORT.fullmatch(_shown(_recorded_cluster() if address == "auto" else address))
    if match is None and address.startswith("ray://"):
        raise ConnectionError("it is not ray://HOST:PORT")
    if match is None:
        return  # a session's name or an http address: Ray gives up on those within seconds
    host, port = match["host"].strip("[]"), int(match["port"])
    with socket.create_connection((host, port), ANSWER_TIMEOUT_S) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
            return
        connection.sendall(_HTTP2_HELLO)
        if not connection.recv(1):
            raise ConnectionError("it closed the connection, so it is not Ray's port")


def _recorded_cluster() -> str:
    """Return the address that Ray takes for `auto`: that of the latest cluster here, which may no longer run."""
    from ray._private.services import get_ray_address_from_environment

    return str(get_ray_address_from_environment("auto", None))


def _start(num_cpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The default of a coming release; without it every start prints a warning about GPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Nothing restarts a local head node: fail within seconds instead of a minute.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    try:
        with _not_ignoring_sigint():
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
def _not_ignoring_sigint() -> Iterator[None]:
    """Let processes that begin in this block take SIGINT, by which Ray cancels tasks.

    A shell starts background jobs with SIGINT ignored, and every process below would inherit that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _drain(stop: threading.Event) -> Handler:
    def drain(number: int, frame: FrameType | None) -> None:
        say("SIGTERM: finishing the running tasks, starting no more")
        stop.set()

    return drain

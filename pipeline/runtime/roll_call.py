"""Roll call after a failed collective: names the missing ranks by number and host."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the launcher's store

from pipeline.errors import RankLostError

WINDOW_S = 10.0
"""How long a rank may take to report after a collective failed on the first one."""
_HOST_BYTES = 64


class RollCall:
    """Finds the missing ranks after a failed collective. Building it is collective.

    Args:
        group: A gloo group of all ranks.
        timeout_s: Timeout of collectives; for the message.
    """

    def __init__(self, group: dist.ProcessGroup, timeout_s: float) -> None:
        self._rank = dist.get_rank(group)
        self._hosts = _gather_hosts(group)
        self._timeout_s = timeout_s
        # Not the group: after one failure gloo closes all its connections.
        self._store = _get_default_store()

    @contextlib.contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Turn the failure of a collective in the block into an error that names the ranks that caused it.

        Raises:
            RankLostError: A rank died or did not reach the collective within the timeout.
        """
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise RankLostError(f"{self._describe(self._missing())}\n  {str(error).splitlines()[0]}") from error

    def _describe(self, lost: list[int]) -> str:
        if not lost:
            return "a collective failed, although all ranks report now; the network may have been interrupted"
        names = ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in lost)
        return (
            f"lost {names}: gone, or not at the step where the others wait (runtime.timeout_s={self._timeout_s:g}).\n"
            "  Its own output says why, if it could still say it. The same command goes on from the last checkpoint"
        )

    def _missing(self) -> list[int]:
        missing = [0]  # without another launcher, rank 0 holds the store
        deadline_s = time.monotonic() + WINDOW_S
        with contextlib.suppress(RuntimeError):  # a rank that reported may end the store when it exits
            self._store.set_timeout(datetime.timedelta(seconds=WINDOW_S))
            self._store.set(_answer(self._rank), "here")
            while missing := [rank for rank in range(len(self._hosts)) if not self._store.check([_answer(rank)])]:
                if time.monotonic() > deadline_s:
                    break
                time.sleep(0.1)
        return missing


def _answer(rank: int) -> str:
    return f"roll_call/{rank}"


def _gather_hosts(group: dist.ProcessGroup) -> list[str]:
    # As plain bytes: torch gathers objects by pickle.
    name = socket.gethostname().encode()[:_HOST_BYTES].ljust(_HOST_BYTES)
    rows = [torch.zeros(_HOST_BYTES, dtype=torch.uint8) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, torch.frombuffer(bytearray(name), dtype=torch.uint8), group=group)
    return [bytes(row.tolist()).decode(errors="replace").strip() for row in rows]

"""Who does not answer: when a collective fails, the ranks that are gone or hang, by number and host."""

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
"""How long a rank may take to answer after a collective failed on the first."""
_HOST_BYTES = 64


class RollCall:
    """Asks all ranks for an answer after a failure. Building it is collective.

    Args:
        group: A gloo group of all ranks.
        timeout_s: How long a collective may wait; for the text.
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
            RankLostError: A rank died or did not come within the timeout.
        """
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise RankLostError(f"{self._describe(self._missing())}\n  {str(error).splitlines()[0]}") from error

    def _describe(self, lost: list[int]) -> str:
        if not lost:
            return "a collective failed, though all ranks answer now; the network may have been away"
        names = ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in lost)
        return (
            f"lost {names}: gone, or not at the step where the others wait (runtime.timeout_s={self._timeout_s:g}).\n"
            "  Its own output says why, if it could still say it. The same command goes on from the last checkpoint"
        )

    def _missing(self) -> list[int]:
        missing = [0]  # where nobody else launched, rank 0 keeps the store
        deadline_s = time.monotonic() + WINDOW_S
        with contextlib.suppress(RuntimeError):  # one that answered may take the store along when it leaves
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

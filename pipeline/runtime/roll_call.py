"""Roll call after a failed collective: names the missing ranks by number and host."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the launcher's store

from pipeline.errors import RankLostError

WINDOW_S = 10.0
"""How long a rank may take to report after a collective failed on the first one."""
_HOST_BYTES = 64
_PRESENT = "roll_call"
"""Key of the numbers of the ranks that report, each followed by a space."""
_MAX_READS_PER_SECOND = 1000
"""Of the list, by all ranks together: the store is one process."""


class RollStore(Protocol):
    """What a roll call needs of torch's stores."""

    def set_timeout(self, timeout: datetime.timedelta, /) -> None:
        """Set how long a request may take."""
        ...

    def append(self, key: str, value: str, /) -> None:
        """Append to a value, at once."""
        ...

    def get(self, key: str, /) -> bytes:
        """Return a value."""
        ...


class RollCall:
    """Finds the missing ranks after a failed collective.

    Args:
        rank: Of this process.
        hosts: Of every rank.
        store: Of all ranks; without the key `roll_call` until a rank calls the roll.
        timeout_s: Timeout of collectives; for the message.
    """

    def __init__(self, rank: int, hosts: Sequence[str], store: RollStore, timeout_s: float) -> None:
        self._rank, self._hosts = rank, hosts
        self._store = store
        self._timeout_s = timeout_s

    @classmethod
    def of_group(cls, group: dist.ProcessGroup, timeout_s: float) -> RollCall:
        """Return that of a gloo group of all ranks. Collective."""
        # The store is not the group's: after one failure gloo closes all its connections.
        return cls(dist.get_rank(group), _gather_hosts(group), cast(RollStore, _get_default_store()), timeout_s)

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
            raise RankLostError(f"{self._describe(self.missing())}\n  {str(error).splitlines()[0]}") from error

    def _describe(self, lost: list[int]) -> str:
        if not lost:
            return "a collective failed, although all ranks report now; the network may have been interrupted"
        names = ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in lost)
        return (
            f"lost {names}: gone, or not at the step where the others wait (runtime.timeout_s={self._timeout_s:g}).\n"
            "  Its own output says why, if it could still say it. The same command goes on from the last checkpoint"
        )

    def missing(self) -> list[int]:
        """Report, wait for the others for up to `WINDOW_S`, and return the ranks that did not report."""
        missing = [0]  # without another launcher, rank 0 holds the store
        deadline_s = time.monotonic() + WINDOW_S
        # Every rank reads: with thousands of them seldom, and the list of those present, not a key for each.
        pause_s = min(max(0.1, len(self._hosts) / _MAX_READS_PER_SECOND), WINDOW_S)
        with contextlib.suppress(RuntimeError):  # a rank that reported may end the store when it exits
            self._store.set_timeout(datetime.timedelta(seconds=WINDOW_S))
            self._store.append(_PRESENT, f"{self._rank} ")
            while missing := self._absent(self._store.get(_PRESENT)):
                if time.monotonic() > deadline_s:
                    break
                time.sleep(pause_s)
        return missing

    def _absent(self, present: bytes) -> list[int]:
        return sorted({*range(len(self._hosts))} - {*map(int, present.split())})


def _gather_hosts(group: dist.ProcessGroup) -> list[str]:
    # As plain bytes: torch gathers objects by pickle.
    name = socket.gethostname().encode()[:_HOST_BYTES].ljust(_HOST_BYTES)
    rows = [torch.zeros(_HOST_BYTES, dtype=torch.uint8) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, torch.frombuffer(bytearray(name), dtype=torch.uint8), group=group)
    return [bytes(row.tolist()).decode(errors="replace").strip() for row in rows]

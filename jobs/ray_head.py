"""A watch over the head of a Ray cluster.

A process that has lost the head is ended by Ray itself, in the middle and without a word of what to do. The watch
ends it shortly before, with the job's own message and exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from jobs.terminal import EXIT_FAULTS
from pipeline.progress import say
from shards.format.endpoints import check_listens

# Ray's own setting and default: how long it waits for a head that is gone, which may come back.
_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_PATIENCE_S = 60.0
_EARLIER = 0.8
_PERIOD_S = 1.0


@contextlib.contextmanager
def watching_head(address: str) -> Iterator[None]:
    """Watch the head of a cluster for the length of a block.

    Args:
        address: Its HOST:PORT, where it accepts connections.
    """
    done = threading.Event()
    patience_s = float(os.environ.get(_PATIENCE, _PATIENCE_S)) * _EARLIER
    watch = threading.Thread(target=_watch, args=(address, patience_s, done), name="ray-head-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(address: str, patience_s: float, done: threading.Event) -> None:
    lost_since_s = None
    while not done.wait(min(_PERIOD_S, patience_s / 4)):
        if _accepts(address):
            if lost_since_s is not None:
                say(f"the head of the Ray cluster at {address} is back")
            lost_since_s = None
            continue
        if lost_since_s is None:
            lost_since_s = time.monotonic()
            say(f"the head of the Ray cluster at {address} does not respond; waiting up to {patience_s:.0f} s for it")
        if time.monotonic() - lost_since_s > patience_s:
            say(
                f"stopped: the head of the Ray cluster at {address} is gone\n"
                "what was finished is kept; start the cluster and rerun the same command to resume"
            )
            sys.stderr.flush()
            os._exit(EXIT_FAULTS)  # the main thread may be inside a call of Ray that does not return


def _accepts(address: str) -> bool:
    try:
        check_listens(f"tcp://{address}", default_port=0)
    except ConnectionError:
        return False
    return True

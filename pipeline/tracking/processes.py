"""Which process of which machine: a mark that other processes can read, to know whether its process still runs.

A process's start is taken from /proc in ticks since the boot: psutil's time of creation moves when the clock is set.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_MARK = re.compile(r"process-([0-9a-f]{16})-(\d+)-(\d+)")
_PROC = Path("/proc")
_STATE, _START_TICKS = 0, 19  # of the fields of /proc/PID/stat behind the name
_DEAD = {"Z", "X"}


def this_process() -> str:
    """Return the mark of this process; one that says nothing where the system has no /proc."""
    pid = os.getpid()
    fields = _fields_of(pid)
    machine = _machine()
    return f"process-{machine}-{pid}-{fields[_START_TICKS]}" if machine and fields else "process-unknown"


def has_died(mark: str) -> bool:
    """Return whether the process of a mark has certainly ended: it was one of this machine since its present start."""
    match = _MARK.fullmatch(mark)
    if match is None or match[1] != _machine():
        return False
    fields = _fields_of(int(match[2]))
    return not fields or fields[_STATE] in _DEAD or fields[_START_TICKS] != match[3]


def _machine() -> str:
    """Return a hash that names this start of the machine and this process's view of its processes (a container's)."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        view = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {view}".encode()).hexdigest()[:16]


def _fields_of(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

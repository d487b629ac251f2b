"""A folder that may be read and not written, also for root, who usually may write anywhere."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_VERSION_3 = 0x20080522
_DAC_OVERRIDE = 1 << 1


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def write_protected(folder: Path) -> Iterator[None]:
    """Take the permission to write into a folder in this block; skips the test where this user needs none."""
    folder.chmod(0o555)
    try:
        with _bound_by_permissions():
            # Root outside of Linux, or where capabilities cannot be given up: nothing is refused there.
            if os.access(folder, os.W_OK, effective_ids=True):
                pytest.skip("this user may write into any folder, and the system has no way to give that up")
            yield
    finally:
        folder.chmod(0o755)


@contextlib.contextmanager
def _bound_by_permissions() -> Iterator[None]:
    """Give up root's right to write anywhere (CAP_DAC_OVERRIDE) in this block, in this thread and those it starts."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Set * 2)()
    libc.capget(ctypes.byref(header), sets)
    before = sets[0].effective
    sets[0].effective = before & ~_DAC_OVERRIDE
    libc.capset(ctypes.byref(header), sets)
    try:
        yield
    finally:
        sets[0].effective = before
        libc.capset(ctypes.byref(header), sets)

"""Keep the memory that a step frees, for the next step.

On a CPU a training step allocates hundreds of MiB in large blocks and frees them. By default the GNU C library returns
such blocks to the kernel at once, and the next ones are fresh pages that have to be faulted in and cleared: a new
feature map can cost a CPU more than the arithmetic on it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

# From the GNU C library's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER_TRIM, _NO_MAPPINGS = -1, 0


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Make the C library keep the memory that this process frees.

    The process then holds its peak, which a training run reaches in every step anyway. An allocator that was configured
    from outside stays as it is: `MALLOC_*`, `GLIBC_TUNABLES`, or another one preloaded.

    Args:
        environment: The process's variables.

    Returns:
        Whether it does; False with another C library.
    """
    is_set_up = any(name.startswith("MALLOC_") or name in {"GLIBC_TUNABLES", "LD_PRELOAD"} for name in environment)
    if is_set_up or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(option, value) for option, value in ((_MMAP_MAX, _NO_MAPPINGS), (_TRIM_THRESHOLD, _NEVER_TRIM))
    )

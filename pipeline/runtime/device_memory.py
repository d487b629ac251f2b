"""The memory of a device: how much a run can have."""

from __future__ import annotations

import psutil
import torch


def available_bytes(device: torch.device) -> int:
    """Return how much memory this process can have on a device, what it already holds included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss

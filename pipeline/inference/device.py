"""The device that inference runs on, and its precision."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which networks run in `float32`, `bf16` or `fp16`; weights and pixels stay as they are."""
    lowered = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, lowered, enabled=lowered is not None)

"""Autocast around operators that choose their own precision."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context that switches autocast off; it does nothing on the meta device, which has no autocast."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def cast_as_autocast_would(tensors: list[Tensor]) -> list[Tensor]:
    """Cast to the autocast dtype if autocast is active, as it does for a convolution's inputs."""
    device = tensors[0].device
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return tensors
    return [tensor.to(torch.get_autocast_dtype(device.type)) for tensor in tensors]

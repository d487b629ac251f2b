"""Images as tensors on the device that metrics run on, and the arithmetic that they run in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor


def metric_device() -> torch.device:
    """Return the CUDA device of this process where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_tensor(image: UInt8[ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """Return an RGB image in [0, 1] as a float32 batch of one, on the metrics' device."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return planes[None].to(metric_device()).float() / 255


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 without gradients, whatever autocast or TF32 the process trains with.

    TF32 rounds the factors of every product to 10 bits of mantissa.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.backends.cudnn.flags(allow_tf32=False),
            torch.autocast(metric_device().type, enabled=False),
            torch.inference_mode(),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)

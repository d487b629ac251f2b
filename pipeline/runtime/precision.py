"""Whether a precision is worth its name on the machine at hand."""

from __future__ import annotations

import torch


def slow_precision(precision: str) -> str | None:
    """Return a note on a precision that this machine computes far more slowly than float32; None on any other.

    A convolution of 64 channels at 64 px took 75 to 135 times as long as in float32 on a CPU with AVX2 alone, in bf16
    and in fp16: oneDNN refuses it, and torch computes it without vector instructions.
    """
    has_only_avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
    if precision == "float32" or torch.cuda.is_available() or not has_only_avx2:
        return None
    return (
        f"note: runtime.precision={precision!r} is tens of times slower than float32 on this CPU, which has no "
        "AVX-512; set --runtime.precision float32"
    )

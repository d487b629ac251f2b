"""A precision that the machine at hand computes far more slowly than float32 is named."""

from __future__ import annotations

import pytest
import torch

from pipeline.runtime.precision import slow_precision


@pytest.mark.parametrize(
    ("precision", "capability", "has_gpu", "is_slow"),
    [
        ("bf16", "AVX2", False, True),
        ("fp16", "AVX2", False, True),
        ("float32", "AVX2", False, False),
        ("bf16", "AVX512", False, False),
        ("bf16", "AVX2", True, False),
    ],
)
def test_precision_without_instructions_is_named(
    monkeypatch: pytest.MonkeyPatch, precision: str, capability: str, has_gpu: bool, is_slow: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    note = slow_precision(precision)
    assert (note is not None) == is_slow
    if note is not None:
        assert "--runtime.precision float32" in note

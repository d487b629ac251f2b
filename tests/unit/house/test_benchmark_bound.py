"""The bound of a step: arithmetic and traffic of operators, against sizes worked out by hand and another counter."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest
import torch
from harness import ROOT

from jobs.command_line import PRESETS
from pipeline.config.schema import Preset
from pipeline.run.cost import cost_of, hollow_gan


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("benchmarks.bound")


def test_operators_have_their_arithmetic_and_traffic(bound: ModuleType) -> None:
    one, other = torch.empty(4, 8, device="meta"), torch.empty(8, 16, device="meta")
    with bound.Operators() as operators:
        product = (one @ other).view(2, 2, 16)  # a view moves nothing
        torch.empty_like(product).copy_(product)
        product.expand(3, 2, 2, 16).relu()
    assert operators.found == [
        bound.Operator(2 * 4 * 8 * 16, 4 * 8 + 8 * 16 + 4 * 16),
        bound.Operator(0, 64 + 64),
        bound.Operator(0, 64 + 3 * 64),
    ]


def test_arithmetic_of_a_step_is_that_of_a_run_per_step(bound: ModuleType) -> None:
    config = PRESETS.load("rrdb_psnr_x4", Preset).train
    step, extractor = bound.count_step(config, hollow_gan(config), 3)
    num_images = config.num_steps * config.data.batch_size
    assert sum(operator.flops for operator in step) == pytest.approx(3 * cost_of(config).flops / num_images)
    assert extractor == []


def test_every_operator_takes_the_longer_of_both(bound: ModuleType) -> None:
    row = bound.row_of_preset("rrdb_psnr_x4", 1)
    cells = row.cells
    assert cells["predicted, ms"] > cells["arithmetic alone, ms"]
    assert cells["predicted, ms"] > 1e12 * cells["GB per step"] / bound.COPY_BYTES
    assert cells["predicted, ms"] < cells["arithmetic alone, ms"] + 1e12 * cells["GB per step"] / bound.COPY_BYTES
    assert cells["measured, ms"] == "not measured"


def test_rates_and_measured_steps_are_those_of_the_document(bound: ModuleType) -> None:
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    rates = re.search(r"(\d+) TFLOP/s in bf16, (\d+) in TF32, .*? copy (\d\.\d) TB/s", page)
    assert rates
    tera = [1e-12 * rate for rate in (*bound.MATRIX_FLOPS.values(), bound.COPY_BYTES)]
    assert tera == pytest.approx([float(rate) for rate in rates.groups()])
    assert f"| bf16, compiled, CUDA graph | separate | {bound.MEASURED_MS['rrdb_sed_p_x4']} |" in page
    assert f"| bf16, CUDA graph | separate | {bound.MEASURED_MS['rrdb_sed_u_x4']} |" in page

"""The GPU benchmarks, small and on a CPU: what is run where a GPU is lent must work the first time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import ROOT, run_command


@pytest.mark.parametrize(
    "parts",
    [
        ("device", "upscale"),
        pytest.param(("step",), marks=pytest.mark.slow),
        pytest.param(("parts", "run"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_tiny_benchmarks_run_on_a_cpu(tmp_path: Path, parts: tuple[str, ...]) -> None:
    command = ["python", "-m", "benchmarks", "--gpu", "--device", "cpu", "--tiny", "--networks", "P+SeD"]
    done = run_command([*command, "--output", "gpu.json", "--parts", *parts], tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["failed"] == {}
    assert all(result["parts"][part] for part in parts)
    assert all(result[key] for key in ("device", "driver", "date", "commit", "command"))


@pytest.mark.slow
def test_failing_part_costs_its_own_table_alone(tmp_path: Path) -> None:
    command = ["python", "-m", "benchmarks", "--gpu", "--device", "cpu", "--tiny", "--output", "gpu.json"]
    done = run_command(
        [*command, "--reference", "nothing", "--networks", "P+SeD", "--parts", "step", "upscale"],
        tmp_path,
        PYTHONPATH=str(ROOT),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED step" in done.stdout
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["failed"]) == ["step"]
    assert result["parts"]["upscale"]

"""The command line that all jobs share: help that teaches, without importing what only the work needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "COMMAND" in path.read_text(encoding="utf-8"))
# The options of the networks may stand in the networks' own files, which import torch.
READS_TRAINING_TABLES = {"train_sed", "cache_features", "plan"}
HEAVY = ("torch", "ray", "mlflow", "accelerate", "deepspeed", "open_clip")
NAMES_HEAVY_MODULES = """
import runpy, sys
sys.argv[1:] = ARGUMENTS
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as left:
    assert not left.code, left.code
print("HEAVY", *(name for name in HEAVY_NAMES if name in sys.modules))
"""


def run_job_and_name_heavy_modules(name: str, folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """Run a job in a fresh interpreter; return its output, and which heavy libraries it imported."""
    program = NAMES_HEAVY_MODULES.replace("ARGUMENTS", repr(list(arguments))).replace("HEAVY_NAMES", repr(HEAVY))
    program = program.replace("sys.argv[0]", repr(str(ROOT / "jobs" / f"{name}.py")))
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    output, _, names = run.stdout.rpartition("HEAVY")
    return output, names.split()


def test_every_verb_is_a_job_with_the_shared_command_line() -> None:
    support = {"__init__", "command_line", "ray_tasks", "sample_photos", "terminal"}
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} - support == {*JOBS} - {"command_line"}


@pytest.mark.parametrize("name", [name for name in JOBS if name != "command_line"])
def test_help_shows_an_example_and_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    text, heavy = run_job_and_name_heavy_modules(name, tmp_path, "--help")
    assert "usage: " in text
    assert f"examples:\n  python jobs/{name}.py" in text
    assert set(heavy) <= ({"torch"} if name in READS_TRAINING_TABLES else set())
    assert list(tmp_path.iterdir()) == []


def test_presets_are_read_without_the_schema_of_training() -> None:
    program = (
        "import sys, pathlib, jobs.command_line as c, shards.config as s;"
        "c.PRESETS.load('demo', s.ShardConfig, table='shards');"
        "print([name for name in ('torch', 'pipeline.config.schema', 'pipeline.models') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"

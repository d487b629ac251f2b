"""The command line that all jobs share: help that teaches, without importing what only the work needs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ROOT

JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "COMMAND" in path.read_text(encoding="utf-8"))
# Importing one of them takes longer than a job may take to answer.
HEAVY = ("torch", "torchvision", "ray", "mlflow", "accelerate", "deepspeed", "transformers", "open_clip", "timm")
MAX_MODULES = 700
NAMES_HEAVY_MODULES = """
import runpy, sys
sys.argv[1:] = ARGUMENTS
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as left:
    code = left.code or 0
print("LOADED", code, len(sys.modules), *(name for name in HEAVY_NAMES if name in sys.modules))
"""


@dataclass(frozen=True)
class Answer:
    """What a job said, and what it imported for it."""

    exit_code: int
    text: str
    num_modules: int
    heavy: list[str]


def ask(name: str, folder: Path, *arguments: str) -> Answer:
    """Run a job in a fresh interpreter that ends by naming the heavy libraries it imported."""
    program = NAMES_HEAVY_MODULES.replace("ARGUMENTS", repr(list(arguments))).replace("HEAVY_NAMES", repr(HEAVY))
    program = program.replace("sys.argv[0]", repr(str(ROOT / "jobs" / f"{name}.py")))
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    output, _, facts = run.stdout.rpartition("LOADED")
    code, num_modules, *heavy = facts.split()
    return Answer(int(code), output + run.stderr, int(num_modules), heavy)


def test_every_verb_is_a_job_with_the_shared_command_line() -> None:
    support = {"__init__", "command_line", "ray_head", "ray_tasks", "sample_photos", "terminal"}
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} - support == {*JOBS} - {"command_line"}


@pytest.mark.parametrize("name", [name for name in JOBS if name != "command_line"])
def test_help_shows_an_example_and_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    answer = ask(name, tmp_path, "--help")
    assert answer.exit_code == 0
    assert "usage: " in answer.text
    assert f"examples:\n  python jobs/{name}.py" in answer.text
    assert answer.heavy == []
    assert answer.num_modules < MAX_MODULES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("train_sed", ["rrdb_sed_p_x5"], "did you mean 'rrdb_sed_p_x4'"),
        ("train_sed", ["--data.crop-px", "17"], "nearest is 16"),
        ("train_sed", ["--generator.architecture", "rrdb", "--generator.num-heads", "2"], "is an option of swinir"),
        ("train_sed", ["--losses.extra", "l2", "1"], "no image loss is named 'l2'"),
        ("cache_features", ["--semantics.batch-statistics"], "source='online'"),
        ("plan", ["--cluster.num-nodes", "0"], "num_nodes=0 must be above 0"),
        ("shard", ["--scale", "0"], "scale"),
        ("upscale", ["--tile-px", "0"], "tile"),
        ("preview", ["--samples", "0"], "from 1 to 64"),
        ("train_sed", [], "no shards here yet"),
        ("cache_features", [], "no shards here yet"),
        ("plan", [], "no shards here yet"),
        ("preview", ["none"], "no shards here yet"),
        ("verify", ["none"], "no shards here yet"),
        ("shard", ["--source", "none", "--output", "out"], "--source none does not exist"),
        ("upscale", ["none.pth", str(ROOT / "docs"), "out"], "no images in"),
        ("evaluate", ["none.pth", "--sets", "none"], "no such folder: none;"),
        ("promote", ["none.pth", "--sets", "none"], "no such folder: none;"),
        ("report", ["none.pth", "--sets", "none"], "no such folder: none;"),
        ("report", ["none.pth", "--max-photo", "3"], "--max-photos"),
        ("visualise", ["none", "--sets", "none"], "no such model: none;"),
        ("visualise", ["none", "--photos", "0"], "--photos must be at least 1"),
    ],
)
def test_bad_input_is_refused_without_importing_anything_heavy(
    name: str, arguments: list[str], text: str, tmp_path: Path
) -> None:
    answer = ask(name, tmp_path, *arguments)
    assert answer.exit_code == 2
    assert text in answer.text
    assert answer.heavy == []
    assert answer.num_modules < MAX_MODULES


def test_presets_are_read_without_the_schema_of_training() -> None:
    program = (
        "import sys, pathlib, jobs.command_line as c, shards.config as s;"
        "c.PRESETS.load('demo', s.ShardConfig, table='shards');"
        "print([name for name in ('torch', 'pipeline.config.schema', 'pipeline.models') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"

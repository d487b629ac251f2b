"""The shape annotations are true: a run of every stage under jaxtyping's and beartype's checks.

In a process of its own, since an import hook must come before the first import of what it checks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
CHECKED = [f"pipeline.{room}" for room in ("degrade", "losses", "metrics", "models", "train")]
RUN = f"""
import sys
from pathlib import Path
from jaxtyping import install_import_hook
install_import_hook({CHECKED}, "beartype.beartype")  # for good: networks are imported when they are first needed
from harness import prepare_tiny_data, tiny_preset, write_shards
from sessions import run_session
import pipeline.run.record
from pipeline.tracking import Trackers
pipeline.run.record.open_trackers = lambda *_: Trackers()
folder, kind = Path(sys.argv[1]), sys.argv[2]
preset = prepare_tiny_data(folder)
if kind == "realworld":
    import dataclasses
    shards = dataclasses.replace(preset.shards, degradation="realworld", output=folder / "real")
    write_shards(shards)
    changes = {{"data.shards": str(folder / "real"), "discriminator.architecture": "unet"}}
    preset = tiny_preset(folder, **changes, **{{"losses.ldl_weight": 1.0, "losses.perceptual_weight": 0.1}})
run_session(preset, folder / "run")
"""
BAD = """
from jaxtyping import install_import_hook
with install_import_hook(["pipeline.losses"], "beartype.beartype"):
    from pipeline.losses import L1Loss
import torch
L1Loss()(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("kind", ["classical", "realworld"])
def test_run_under_shape_checks_finds_no_wrong_annotation(kind: str, tmp_path: Path) -> None:
    done = run(RUN, str(tmp_path), kind)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "export" / "generator.safetensors").is_file()


def test_shape_check_refuses_a_wrong_shape() -> None:
    done = run(BAD)
    assert done.returncode == 1
    assert "Float[Tensor, 'n c h w']" in done.stderr

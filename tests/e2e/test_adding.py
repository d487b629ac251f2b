"""One of everything from outside the package, exactly as CONTRIBUTING.md shows it: trained for a step and evaluated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness import ROOT, run_command, write_photos
from safetensors import safe_open

# Writes shards with the toy's own recipe and a preset that names one toy of each kind.
PREPARE = """
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import train_toy
from harness import tiny_preset, write_preset, write_shards

folder = Path.cwd()
preset = tiny_preset(folder, **{
    "generator": {"architecture": "toy", "scale": 4, "width": 4},
    "discriminator": {"architecture": "toy", "semantic": False},
    "losses.extra": {"toy_gradient": 0.1},
    "data.crop_px": 32,
    "schedule.total_images": 8,
    "schedule.pixel_only_images": 4,
    "schedule.milestones_images": [],
    "report.validate_every_images": 8,
})
shards = dataclasses.replace(preset.shards, degradation="realworld", recipe=str(folder / "faded.toml"))
preset = dataclasses.replace(preset, shards=shards)
write_shards(shards)
write_preset(preset, folder / "toy.json")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the files of CONTRIBUTING.md, photos and a validation set."""
    blocks = re.findall(
        r"^```\w+\n# (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 7
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "toy" / "__init__.py").write_text("")
    (tmp_path / "prepare.py").write_text(PREPARE)
    (tmp_path / "evaluate_toy.py").write_text(
        (tmp_path / "train_toy.py").read_text().replace("jobs.train_sed", "jobs.evaluate")
    )
    write_photos(tmp_path / "photos", [(160, 176), (128, 200)])
    write_photos(tmp_path / "validation" / "HR", [(64, 72)])
    return tmp_path


def run(folder: Path, *command: str) -> str:
    done = run_command(["python", *command], folder, PYTHONPATH=f"{ROOT}:{folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_toys_of_contributing_train_a_step_and_are_evaluated(folder: Path) -> None:
    run(folder, "prepare.py", str(ROOT / "tests"))
    run(folder, "train_toy.py", "toy.json")
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    reported = {name: value for line in lines for name, value in line.items()}
    assert reported["generator/toy_gradient"] > 0
    assert reported["discriminator/real"] > 0
    assert json.loads((folder / "shards/manifest.json").read_text())["config"]["recipe"] == "faded-1"
    with safe_open(folder / "run/export/generator.safetensors", "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "toy"
        assert file.get_tensor("first.weight").shape == (4, 3, 3, 3)
    for network in ("generator", "discriminator"):
        assert (folder / f"run/export/{network}.safetensors").is_file()

    run(folder, "evaluate_toy.py", "run", "--sets", "validation", "--metrics", "toy_mae", "--output", "toy_mae.json")
    mean = json.loads((folder / "toy_mae.json").read_text())["sets"]["validation"]["mean"]
    assert 0 < mean["toy_mae"] < 255

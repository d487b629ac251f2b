"""Training on shards with flipped bytes: one run on one process or two, its count, and a limit that all ranks keep."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from harness import ROOT, job, prepare_tiny_data, run_command, write_preset

from shards.format.manifest import read_manifest
from shards.format.sidecars import read_sidecar

ONE = ["python"]
TWO = ["accelerate", "launch", "--config_file", str(ROOT / "infra" / "accelerate" / "cpu_2.yaml")]
ALLOWED = ("--data.max-bad-fraction", "0.5")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny shards, in each of which every third sample has a flipped bit, and a preset on pixels alone."""
    folder = tmp_path_factory.mktemp("damaged")
    preset = prepare_tiny_data(folder)
    for entry in read_manifest(preset.train.data.shards).shards:
        path = preset.train.data.shards / entry.tar_name
        content = bytearray(path.read_bytes())
        samples = read_sidecar(path.with_suffix(".json")).samples()
        for members in samples[::3]:
            content[members[-1].offset + 9] ^= 4
        path.write_bytes(content)
    write_preset(preset, folder / "preset.json")
    return folder


def train(launcher: list[str], data: Path, run_dir: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*launcher, job("train_sed.py"), str(data / "preset.json"), "--run-dir", run_dir]
    return run_command([*command, "--losses.adversarial-weight", "0", "--report.validation-sets", *flags], data)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def faults(said: str) -> list[str]:
    return sorted(line for line in said.splitlines() if line.startswith("image ") and line.endswith(" instead"))


@pytest.mark.slow
@pytest.mark.distributed
def test_damaged_shards_train_one_run_on_one_process_or_on_two_and_resumed(data: Path) -> None:
    alone = train(ONE, data, "alone", *ALLOWED)
    assert alone.returncode == 0, alone.stderr
    lines = metrics(data / "alone")
    counts = [line["data/substituted"] for line in lines]
    assert len(faults(alone.stderr)) == counts[-1] > counts[2] > 0

    first = train(TWO, data, "resumed", *ALLOWED, "--schedule.total-images", "12")
    assert "DDP, 2 process(es)" in first.stderr
    rest = train(ONE, data, "resumed", *ALLOWED)
    resumed = metrics(data / "resumed")
    assert [line["data/substituted"] for line in resumed] == counts
    losses = [line["generator/pixel"] for line in lines]
    assert [line["generator/pixel"] for line in resumed] == pytest.approx(losses, rel=1e-4)
    assert faults(first.stderr + rest.stderr) == faults(alone.stderr)


@pytest.mark.slow
@pytest.mark.distributed
def test_damaged_shards_beyond_the_limit_stop_both_processes(data: Path) -> None:
    done = train(TWO, data, "stopped", "--data.max-bad-fraction", "0")
    assert done.returncode == 1
    assert done.stderr.count("data.max_bad_fraction=0 allows 0") == 2, done.stderr
    assert "Repair the shards (jobs/verify.py)" in done.stderr

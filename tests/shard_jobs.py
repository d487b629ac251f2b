"""What tests that start and kill `jobs/shard.py` share: photos for many small shards, the command, and its output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from harness import ROOT, small_shard_config
from PIL import Image

from shards.config import ShardConfig

# Ray notices within seconds that a part of it is dead, as on a cluster within minutes.
IMPATIENT_RAY = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "2",
}


def many_small_shards(folder: Path, output: Path, num_photos: int) -> ShardConfig:
    """Write photos of noise into `folder`; return settings that cut each into some ten shards."""
    folder.mkdir()
    for number in range(num_photos):
        pixels = np.random.default_rng(number).integers(0, 256, (150 + number, 171, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return small_shard_config(folder, output, shard_size_mib=0.03)


def start_shard_job(
    config: ShardConfig, output: Path, environment: Mapping[str, str], stderr: int
) -> subprocess.Popen[str]:
    """Start the command as a user does, with the settings of `config` and another output."""
    flags = {
        "--output": output,
        "--source": config.source[0],
        "--degradation": config.degradation,
        "--scale": config.scale,
        "--sub-image-px": config.sub_image_px,
        "--stride-px": config.stride_px,
        "--variants": config.variants,
        "--seed": config.seed,
        "--shard-size-mib": config.shard_size_mib,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    command = [sys.executable, "jobs/shard.py", *words, "--exclude"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr, text=True)


def without_ray_address() -> dict[str, str]:
    """The environment of a job that starts its own Ray, which is impatient."""
    environment = {**os.environ, **IMPATIENT_RAY, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    return environment


def shard_files(folder: Path) -> dict[str, bytes]:
    """The content of every file that is the same however the job ran."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "status.json"}

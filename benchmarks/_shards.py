"""Shards for benchmarks, written in this process."""

from __future__ import annotations

from pathlib import Path

from shards.config import ShardConfig
from shards.write.dataset import survey_and_plan, write
from shards.write.execution import SERIAL
from shards.write.sources import discover

SCALE = 4


def write_classical(
    photos: Path, output: Path, *, sub_image_px: int = 480, stride_px: int = 240, shard_mib: float = 64.0
) -> None:
    """Write classical shards at x4, one variant per sub-image."""
    config = ShardConfig((photos,), output, "classical", SCALE, sub_image_px, stride_px, 1, 0, shard_mib)
    files = discover(config.source)
    write(survey_and_plan(config, files, (), SERIAL), output, files, SERIAL)

"""A run that is asked to stop drops a loader whose processes are still handing batches over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import ROOT, small_shard_config, write_photos, write_shards

# Batches so large that some are always on their way.
_DROP = """
import sys
from pathlib import Path
import torch
import pipeline.data.samples as data
from pipeline.config.data import DataConfig

def large(items):
    return torch.ones(1 << 26)

if __name__ == "__main__":
    data.collate = large
    samples = data.TrainingSamples(DataConfig(Path(sys.argv[1]), 64, 64, 2, 2), seed=0)
    loader = iter(data.batches(samples, data.RankBatches(0, 10**6, 2, 0, 1), 2, pin_memory=False))
    assert next(loader).shape == next(loader).shape == (1 << 26,)
    del loader
"""


def test_loader_when_dropped_with_batches_on_their_way_ends_in_silence(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", [(100, 100)])
    write_shards(small_shard_config(photos, tmp_path / "shards"))
    (tmp_path / "drop.py").write_text(_DROP)
    command = [sys.executable, str(tmp_path / "drop.py"), str(tmp_path / "shards")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")

"""Training on shards in an object store, with a loader process, is the run on the same shards in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import job, prepare_tiny_data, run_command, write_preset

from shards.storage import RemotePath


@pytest.mark.distributed
def test_remote_shards_train_the_run_of_the_folder(tmp_path: Path, bucket: str) -> None:
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    home = RemotePath(f"{bucket}/shards")
    for path in preset.train.data.shards.iterdir():
        with path.open("rb") as stream:
            (home / path.name).publish(stream)
    common = ["python", job("train_sed.py"), str(tmp_path / "preset.json"), "--losses.adversarial-weight", "0"]
    common += ["--report.validation-sets", "--data.window-shards", "2", "--run-dir"]
    remote = ["--data.shards", str(home), "--data.cache-dir", "cache", "--data.num-workers", "1"]
    local = run_command([*common, "local"], tmp_path)
    assert local.returncode == 0, local.stderr
    # The shards move in the middle of the run: it goes on, since they are the same by their hash.
    for flags in (["--schedule.total-images", "12"], remote):
        done = run_command([*common, "moved", *flags], tmp_path)
        assert done.returncode == 0, done.stderr
    lines = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("local", "moved")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[-1])["images_seen"] == 24
    assert list((tmp_path / "cache").glob("*.tar"))

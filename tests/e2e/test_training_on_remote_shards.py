"""Training on shards and features in an object store, with a loader process, is the run on the same in folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import job, prepare_tiny_data, run_command, write_preset

from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath


@pytest.mark.slow
@pytest.mark.distributed
def test_remote_shards_train_the_run_of_the_folder(tmp_path: Path, bucket: str) -> None:
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    home = RemotePath(f"{bucket}/shards")
    for path in preset.train.data.shards.iterdir():
        with path.open("rb") as stream:
            (home / path.name).publish(stream)
    features = RemotePath(f"{bucket}/features")
    cache = ["python", job("cache_features.py"), str(tmp_path / "preset.json"), "--output", str(features)]
    written = run_command([*cache, "--shards", str(home), "--data.cache-dir", "copies"], tmp_path)
    assert written.returncode == 0, written.stderr
    preset.train.semantics.cache.mkdir()
    for path in features.iterdir():
        (preset.train.semantics.cache / path.name).write_bytes(path.read_bytes())
    common = ["python", job("train_sed.py"), str(tmp_path / "preset.json"), "--semantics.source", "cached"]
    common += ["--report.validation-sets", "--data.window-shards", "2", "--run-dir"]
    remote = ["--data.shards", str(home), "--semantics.cache", str(features)]
    remote += ["--data.cache-dir", "cache", "--data.num-workers", "1"]
    local = run_command([*common, "local"], tmp_path)
    assert local.returncode == 0, local.stderr
    # Shards and features move in the middle of the run: it goes on, since they are the same by their hashes.
    for flags in (["--schedule.total-images", "12"], remote):
        done = run_command([*common, "moved", *flags], tmp_path)
        assert done.returncode == 0, done.stderr
    lines = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("local", "moved")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[-1])["images_seen"] == 24
    copies = {path.stem for path in (tmp_path / "cache").glob("*.tar")}
    for folder in (home, features):
        assert copies & {entry.sha256 for entry in read_manifest(folder).shards}

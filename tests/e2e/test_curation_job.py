"""Curation as a user runs it: a preset with rules, the counts of a dry run, the shards, and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from curated_photos import write_spoiled_photos
from harness import job, run_command
from PIL import Image

from shards.format.manifest import read_manifest
from shards.read.reader import ShardSet

PRESET = """
base = "demo"

[shards]
source = ["photos"]
output = "shards"
sub_image_px = 64
stride_px = 32
exclude = []

[shards.curation]
near_duplicate_bits = 40

[shards.curation.photo]
min_sharpness = 0.5
max_blockiness = 1.3
max_flat_share = 0.7

[shards.curation.sub_image]
max_flat_share = 0.5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curation")
    write_spoiled_photos(folder / "photos")
    (folder / "rules.toml").write_text(PRESET)
    return folder


def shard(folder: Path, *flags: str) -> str:
    done = run_command(["python", job("shard.py"), "rules.toml", *flags], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_job_prints_counts_by_rule_writes_what_remains_and_draws_what_does_not(folder: Path) -> None:
    printed = shard(folder, "--dry-run")
    assert "5 of 9 photos, 88 sub-images" in printed
    assert "dropped sub-images of these photos: 8 of 96 (8 flat)" in printed
    assert "rejected: 4 (1 blocky, 1 blurred, 1 flat, 1 near-duplicate)" in printed
    assert "photos/flat.png: flat (flat_share 1.000 is above max_flat_share=0.7)" in printed
    assert not (folder / "shards").exists()

    shard(folder)
    manifest = read_manifest(folder / "shards")
    assert manifest.num_samples == len(ShardSet.open(folder / "shards")) == 88
    assert manifest.dropped_sub_images == {"flat": 8}
    config = json.loads((folder / "shards" / "manifest.json").read_text())["config"]
    assert config["curation"]["sub_image"] == {"max_flat_share": 0.5}

    command = ["python", job("preview.py"), "shards", "--rejected", "--source", "photos", "--output", "rejected.png"]
    done = run_command([*command, "--samples", "2"], folder)
    assert done.returncode == 0, done.stderr
    # A row for each of four reasons of photos, and one for sub-images; the widest has two flat sub-images of 64 px.
    picture = np.asarray(Image.open(folder / "rejected.png"))
    assert picture.shape[0] > 5 * 256
    assert (picture[-256 - 60 : -80, :10] == 77).any()  # the flat half of half.png

"""Frames of a video's folder come into one shard, and all leave with one that is an evaluation image."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness import small_shard_config, write_shards
from PIL import Image

from shards.config import ShardConfig
from shards.format.manifest import read_manifest
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder
from shards.write.dataset import describe, survey_and_plan
from shards.write.execution import SERIAL
from shards.write.generations import read_generations
from shards.write.sources import discover

FRAMES = {"clip0": 2, "clip1": 5, "deep/clip2": 3, "deep/clip3": 1, "deep": 1, "clip4": 1}


@pytest.fixture
def config(tmp_path: Path) -> ShardConfig:
    """Videos of a few frames of one sub-image each; about three of those fill a shard."""
    for clip, (name, num_frames) in enumerate(FRAMES.items()):
        (tmp_path / "videos" / name).mkdir(parents=True, exist_ok=True)
        for number in range(num_frames):
            frame = np.random.default_rng(10 * clip + number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(frame).save(tmp_path / "videos" / name / f"{number:03d}.png")
    return small_shard_config(
        tmp_path / "videos", tmp_path / "shards", keep_together="folder", shard_size_mib=0.04, max_reject_fraction=1.0
    )


def folders_of(output: Path) -> list[list[str]]:
    """The folders of each shard's samples, in order."""
    images = ShardSet.open(output)
    return [
        [sample.record.source.rpartition("/")[0] for sample in images.samples_of(number)]
        for number in range(len(images.manifest.shards))
    ]


def test_folder_is_in_one_shard_in_the_order_of_its_frames(config: ShardConfig) -> None:
    manifest = write_shards(config)
    shards = folders_of(config.output)
    assert manifest.images.keep_together == "folder"
    assert len(shards) > 2
    for name, num_frames in FRAMES.items():
        (holds,) = [shard for shard in shards if f"videos/{name}" in shard]
        assert holds.count(f"videos/{name}") == num_frames
    # A folder that is larger than a shard is not cut; others share a shard where they fit.
    assert max(len(shard) for shard in shards) == 5
    assert any(len(set(shard)) > 1 for shard in shards)
    images = ShardSet.open(config.output)
    sources = [images.sample(index).record.source for index in range(len(images))]
    for name in FRAMES:
        own = [source for source in sources if source.rpartition("/")[0] == f"videos/{name}"]
        assert own == sorted(own)
    assert verify_folder(config.output).faults == []
    assert [plan.fingerprint for plan in read_generations(config.output)] == [manifest.fingerprint]


def test_seed_shuffles_folders(config: ShardConfig) -> None:
    orders = set()
    for seed in range(6):
        output = config.output / str(seed)
        write_shards(dataclasses.replace(config, seed=seed, output=output))
        orders.add(tuple(dict.fromkeys(folder for shard in folders_of(output) for folder in shard)))
    assert len(orders) > 1


def test_frames_of_an_evaluation_image_are_all_rejected(config: ShardConfig, tmp_path: Path) -> None:
    (tmp_path / "Set").mkdir()
    shutil.copy(tmp_path / "videos" / "clip1" / "002.png", tmp_path / "Set" / "x.png")
    files, evaluation = discover(config.source), discover([tmp_path / "Set"])
    plans = survey_and_plan(config, files, evaluation, SERIAL, cut=False)
    rejects = {reject.path: (reject.reason, reject.detail) for reject in plans[0].rejects}
    assert rejects.pop("videos/clip1/002.png") == ("duplicate", "same pixels as the evaluation image Set/x.png")
    assert set(rejects) == {f"videos/clip1/00{number}.png" for number in (0, 1, 3, 4)}
    assert set(rejects.values()) == {
        ("same-folder", "its folder holds videos/clip1/002.png, with the pixels of the evaluation image Set/x.png")
    }
    text = describe(plans, files)
    assert "rejected: 5 (1 duplicate, 4 same-folder)" in text
    assert "5 folder(s) kept together; the largest shard has about" in text
    apart = dataclasses.replace(config, keep_together="photo")
    (plan,) = survey_and_plan(apart, files, evaluation, SERIAL, cut=False)
    assert [reject.reason for reject in plan.rejects] == ["duplicate"]


def test_setting_takes_part_in_the_fingerprint_only_where_it_is_used(config: ShardConfig) -> None:
    write_shards(config)
    apart = dataclasses.replace(config, keep_together="photo", output=config.output.with_name("apart"))
    write_shards(apart)
    assert "keep_together" not in (apart.output / "manifest.json").read_text()
    assert read_manifest(apart.output).images.keep_together == "photo"
    assert '"keep_together": "folder"' in (config.output / "manifest.json").read_text()

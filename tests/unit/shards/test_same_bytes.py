"""Datasets that use no newer option keep every byte: the goldens are those of commit b24d4f7, before pairs were added.

The library's zlib, which the encoder's name holds and which decides the bytes of a PNG, is left out: fingerprints are
taken with a fixed name, and images compared by their pixels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from harness import small_shard_config, write_shards
from PIL import Image

from shards.config import ShardConfig
from shards.format.documents import digest_of
from shards.format.png import decode_png, pixels_sha256
from shards.read.reader import ShardSet
from shards.write.generations import read_generations
from shards.write.plan import plan_generation

# Per degradation: fingerprint of the plan, and digest of all members.
GOLDEN = {
    "classical": (
        "76aba81101e1455c50a9dc7199103ff830cbced5cafbab49dc00a9421870b108",
        "b04ed395014d825eebc9807a31eed98ba27171466855e350cecf571137247c18",
    ),
    "realworld": (
        "5d276ce8b664f576dba05483ea011a31dee97b71632e4579e197d16663fa832b",
        "c57ec5b01db7637d8f4166ba24792059684b52a4e6372784b49d56ed12eb2c3c",
    ),
}


def write_dataset(folder: Path, degradation: str) -> ShardConfig:
    (folder / "photos" / "deep").mkdir(parents=True)
    for number, (name, height_px, width_px) in enumerate(
        [("a.bmp", 150, 171), ("deep/b.bmp", 64, 200), ("deep/c.bmp", 101, 67), ("small.bmp", 30, 99)]
    ):
        values = (np.arange(height_px * width_px * 3) * (7 + number) + number) % 251
        pixels = values.reshape(height_px, width_px, 3).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / name)
    config = small_shard_config(
        folder / "photos", folder / "shards", degradation=degradation, max_reject_fraction=0.5, shard_size_mib=0.0625
    )
    write_shards(config)
    return config


def fingerprint_of(config: ShardConfig) -> str:
    (plan,) = read_generations(config.output)
    settings = dataclasses.replace(plan.settings, encoder="png")
    return plan_generation(settings, plan.photos, plan.rejects).fingerprint


def contents_of(config: ShardConfig) -> str:
    images = ShardSet.open(config.output)
    members = []
    for number, shard in enumerate(images.manifest.shards):
        for sample in images.samples_of(number):
            for extension, content in sample.members.items():
                is_image = extension.endswith("png")
                value = pixels_sha256(decode_png(content, sample.key)) if is_image else content.decode("ascii")
                members.append([shard.name, sample.key, extension, value])
    return digest_of(members)


@pytest.mark.parametrize("degradation", GOLDEN)
def test_dataset_without_newer_options_is_what_it_was(tmp_path: Path, degradation: str) -> None:
    config = write_dataset(tmp_path, degradation)
    assert (fingerprint_of(config), contents_of(config)) == GOLDEN[degradation]

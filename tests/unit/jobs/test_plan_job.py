"""The cost of features computed online and read from a cache, against calculations by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jobs import plan
from pipeline.errors import ConfigError
from pipeline.inference.feature_cost import Cluster, FeatureCost, describe, estimate
from shards.format.manifest import Manifest, write_manifest
from shards.format.settings import ImageSettings
from shards.format.sidecars import ShardEntry

CLUSTER = Cluster(
    num_nodes=2,
    gpus_per_node=4,
    step_images_per_second=10.0,
    extractor_images_per_second=90.0,
    read_mb_per_second=1000.0,
)
# 1,000,000 bytes a sample.
SETTINGS = ImageSettings("reject", "classical", "png", 10**8, "bicubic-1", 4, 0, 192.0, 240, 480, variants=3)
IMAGES = Manifest("0" * 64, SETTINGS, (ShardEntry("images-000000", "0" * 64, 36_000 * 10**6, 36_000),))


TOTAL_IMAGES = 7_200_000


def cost_on(cluster: Cluster) -> FeatureCost:
    return estimate(cluster, IMAGES, crop_px=256, total_images=TOTAL_IMAGES, channels=1024)


def test_cost_equals_a_calculation_by_hand() -> None:
    cost = cost_on(CLUSTER)
    assert cost.feature_bytes == 512 * 2**10
    assert cost.cache_bytes == 3 * 36_000 * 512 * 2**10
    assert cost.online_hours == pytest.approx(7_200_000 / (8 * 9) / 3600)
    assert cost.fill_hours == pytest.approx(3 * 36_000 / (8 * 90) / 3600)
    assert cost.cached_hours == pytest.approx(7_200_000 / 80 / 3600)
    assert not cost.is_read_bound
    text = describe(cost, CLUSTER, IMAGES, TOTAL_IMAGES)
    assert "200.0 epochs" in text
    assert "cached is faster by 2.7 h" in text


def test_cost_on_a_slow_disk_is_bound_by_reading() -> None:
    slow = dataclasses.replace(CLUSTER, read_mb_per_second=15.24288)
    cost = cost_on(slow)
    assert cost.is_read_bound
    assert cost.cached_hours == pytest.approx(7_200_000 / (2 * 10) / 3600)
    assert "online is faster" in describe(cost, slow, IMAGES, TOTAL_IMAGES)


def test_cluster_when_out_of_range_lists_every_fault() -> None:
    with pytest.raises(ConfigError, match=r"num_nodes=0 must be above 0; read_mb_per_second=-1 must be above 0"):
        dataclasses.replace(CLUSTER, num_nodes=0, read_mb_per_second=-1)


def test_job_when_given_shards_prints_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path, IMAGES)
    assert plan.main(["rrdb_sed_p_x4", "--data.shards", str(tmp_path), "--cluster.num-nodes", "4"]) == 0
    said = capsys.readouterr().out
    assert "4 machine(s) of 8 GPU(s)" in said
    assert "512 KiB per crop, 3 crop(s) per sample" in said

"""What a large run needs of a cluster, against calculations by hand, and what breaks first."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from jobs import plan
from pipeline.errors import ConfigError
from pipeline.inference.run_limits import Limit, describe_scale, limits_of
from pipeline.inference.run_scale import (
    DAY_S,
    DRIVER_BYTES_PER_PHOTO,
    DRIVER_BYTES_PER_SHARD,
    RANK_BYTES_PER_SHARD,
    SIDECAR_BYTES_PER_SAMPLE,
    DatasetSize,
    LargeCluster,
    RunScale,
    Training,
    daly_interval_s,
)
from shards.errors import InputError
from shards.format.settings import ImageSettings

CLUSTER = LargeCluster(num_nodes=10, gpus_per_node=8, hours_between_failures=240.0, restart_minutes=2.0)
SETTINGS = ImageSettings("reject", "classical", "png", 10**8, "bicubic-1", 4, 0, 192.0, 240, 480, variants=4)
IN_PLACE = DatasetSize(SETTINGS, num_samples=4_000_000, num_shards=10_000, size_bytes=2e12, is_remote=False)
REMOTE = dataclasses.replace(IN_PLACE, is_remote=True)
TRAINING = Training(
    images_per_second=10.0,
    read_mb_per_second=1000.0,
    batch_size=640,
    num_workers=4,
    window_shards=64,
    cache_bytes=64 * 2**30,
    checkpoint_bytes=371 * 2**20,
    checkpoint_every_images=480_000,
    timeout_s=600,
)
SCALE = RunScale(CLUSTER, IN_PLACE, TRAINING)


def limit(scale: RunScale, name: str) -> Limit:
    return next(limit for limit in limits_of(scale) if limit.name == name)


def on(num_nodes: int, scale: RunScale = SCALE) -> RunScale:
    return dataclasses.replace(scale, cluster=dataclasses.replace(scale.cluster, num_nodes=num_nodes))


def training(**changes: float) -> RunScale:
    return dataclasses.replace(SCALE, training=dataclasses.replace(TRAINING, **changes))


def test_sizes_equal_a_calculation_by_hand() -> None:
    assert SCALE.images_per_second == 800
    assert SCALE.driver_bytes == 100_000 * DRIVER_BYTES_PER_PHOTO + 10_000 * DRIVER_BYTES_PER_SHARD
    assert SCALE.node_bytes == 8 * 10_000 * (RANK_BYTES_PER_SHARD + 4 * 500)
    assert SCALE.checkpoint_s == 600
    assert SCALE.pause_s == pytest.approx(0.05)
    assert SCALE.failures_per_day == pytest.approx(1.0)


def test_planned_shards_are_those_that_sharding_would_write() -> None:
    settings = ImageSettings("reject", "classical", "png", 10**8, "bicubic-1", 4, 0, 192.0, 240, 480, variants=1)
    size = DatasetSize.planned(1_000_000_000, settings, is_remote=False)
    # HR and LQ of 2 bytes per pixel, a record and a seed, three tar headers.
    sample_bytes = 2 * (480**2 + 120**2) + 335 + 3 * 768
    assert size.sample_bytes == sample_bytes
    assert size.num_shards == math.ceil(1e9 / (192 * 2**20 // sample_bytes))
    assert limit(RunScale(CLUSTER, size, TRAINING), "shards").load == pytest.approx(2.445, rel=0.001)
    assert DatasetSize.planned(1, settings, is_remote=False).num_shards == 1


def test_work_lost_is_a_pause_per_interval_and_per_failure_half_of_one_and_a_restart() -> None:
    # One failure per day.
    by_hand = 0.05 / 600 + (300 + SCALE.restart_s) / DAY_S
    assert SCALE.lost_share(600) == pytest.approx(by_hand)
    assert 120 < SCALE.restart_s < 150
    assert SCALE.lost_share(1e9) == 1.0


def test_daly_interval_is_youngs_where_a_checkpoint_costs_little() -> None:
    assert daly_interval_s(0.01, 1e6) == pytest.approx(math.sqrt(2 * 0.01 * 1e6), rel=0.001)
    assert daly_interval_s(60, 86_400) == pytest.approx(
        math.sqrt(2 * 60 * 86_400) * (1 + math.sqrt(60 / 172_800) / 3 + 60 / 172_800 / 9) - 60
    )
    assert daly_interval_s(200, 100) == 100


def test_best_interval_loses_least() -> None:
    best = SCALE.best_interval_s
    assert all(SCALE.lost_share(best) <= SCALE.lost_share(factor * best) for factor in (0.25, 0.5, 0.8, 1.3, 2, 4))
    slow = training(checkpoint_bytes=371 * 2**20, read_mb_per_second=1.0)
    assert slow.best_interval_s == slow.write_s > best  # the next one cannot begin before the last is written


@pytest.mark.parametrize("is_remote", [False, True])
def test_every_need_grows_with_the_cluster(is_remote: bool) -> None:
    scale = dataclasses.replace(SCALE, dataset=REMOTE if is_remote else IN_PLACE)
    scales = [on(num_nodes, scale) for num_nodes in (1, 16, 128, 1000)]
    for one, other in itertools.pairwise(scales):
        assert one.requests_per_second < other.requests_per_second
        assert one.read_mb_per_second <= other.read_mb_per_second
        assert one.rendezvous_s < other.rendezvous_s
        assert one.failures_per_day < other.failures_per_day
        assert one.best_interval_s > other.best_interval_s
        assert one.lost_share(3600) < other.lost_share(3600)


def test_reading_in_place_takes_samples_and_the_sidecars_of_their_shards() -> None:
    without_windows = training(window_shards=0)
    sidecar = 400 * SIDECAR_BYTES_PER_SAMPLE
    assert without_windows.requests_per_second == pytest.approx(2 * 800)
    assert without_windows.read_mb_per_second == pytest.approx(80 * (500_000 + sidecar) / 1e6)
    few = dataclasses.replace(without_windows, dataset=DatasetSize(SETTINGS, 400_000, 1000, 2e11, is_remote=False))
    assert few.requests_per_second < 2 * 800  # loaders keep all sidecars
    alone = RunScale(dataclasses.replace(CLUSTER, num_nodes=1, gpus_per_node=1), IN_PLACE, TRAINING)
    # Each of the 4 loaders opens each shard.
    assert alone.requests_per_second == pytest.approx(10 * (1 + 4 / 400), rel=0.01)


def test_machines_copy_whole_shards_from_an_object_store() -> None:
    remote = dataclasses.replace(SCALE, dataset=REMOTE)
    # One machine copies each shard once per epoch, a thousand nearly as many as they use images.
    sample_bytes = 500_000 + SIDECAR_BYTES_PER_SAMPLE
    assert on(1, remote).read_mb_per_second == pytest.approx(80 * sample_bytes / 1e6, rel=0.01)
    many = on(1000, remote)
    assert 0.8 < many.read_mb_per_second / (80 * 400 * sample_bytes / 1e6) < 1
    assert limits_of(many)[0].name in {"bandwidth", "requests"}
    shuffled = dataclasses.replace(remote, training=dataclasses.replace(TRAINING, window_shards=0))
    assert "--data.window-shards 64: without windows every image copies a whole shard" in describe_scale(shuffled)


def test_first_to_break_is_named_with_its_remedy() -> None:
    text = describe_scale(training(batch_size=32))
    assert "breaks first: batch: 80 of 32 images per step, one per process at least; --data.batch-size 640," in text
    assert "breaks too" not in text
    text = describe_scale(on(1))
    assert "nothing breaks; nearest to its limit: " in text
    assert "configured" in text
    assert "loses least" in text


def test_cluster_when_out_of_range_lists_every_fault() -> None:
    with pytest.raises(ConfigError, match=r"hours_between_failures=0 must be above 0; restart_minutes=-1 must be 0"):
        dataclasses.replace(CLUSTER, hours_between_failures=0, restart_minutes=-1)
    with pytest.raises(ConfigError, match="num_nodes=0 must be above 0"):
        LargeCluster(num_nodes=0)


def test_job_plans_without_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["rrdb_sed_p_x4", "--samples", "1e9", "--cluster.num-nodes", "1000", "--shard-size-mib", "192"]
    assert plan.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("1,000,000,000 samples, ")
    assert "assumed, not measured: step_images_per_second 10" in said
    assert "scale: 1,000,000,000 samples in 2,444,988 shards of 192 MiB" in said
    assert "breaks first: batch: 8,000 of 32 images per step" in said
    assert "breaks too: shards: 2.445e+06 of 1e+06" in said


def test_job_when_it_cannot_plan_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples=0\.0 must be above 0"):
        plan.main(["rrdb_sed_p_x4", "--samples", "0"])
    with pytest.raises(InputError, match="no shards here yet"):  # which a measurement reads
        plan.main(["rrdb_sed_p_x4", "--data.shards", str(tmp_path), "--samples", "1e6", "--measure"])


def test_samples_like_those_of_shards_are_in_shards_as_large() -> None:
    more = IN_PLACE.with_samples(4_000_001)
    assert (more.num_shards, more.samples_per_shard) == (10_001, pytest.approx(400, rel=1e-3))
    assert more.sample_bytes == pytest.approx(IN_PLACE.sample_bytes)

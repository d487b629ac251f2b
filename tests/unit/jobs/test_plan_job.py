"""The cost of features computed online and read from a cache, against calculations by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from harness import prepare_tiny_data, write_preset

from jobs import plan
from pipeline.errors import ConfigError
from pipeline.inference.feature_cost import Cluster, ModeCost, Rates, Work, choose, describe, estimate, rates_of
from pipeline.inference.machine_profile import MachineProfile, load_profile
from shards.errors import InputError
from shards.format.manifest import Manifest, write_manifest
from shards.format.settings import ImageSettings
from shards.format.sidecars import ShardEntry

CLUSTER = Cluster(
    num_nodes=2,
    gpus_per_node=4,
    step_images_per_second=10.0,
    extractor_images_per_second=90.0,
    read_mb_per_second=1000.0,
    price_per_gpu_hour=2.0,
)
# 1,000,000 bytes a sample.
SETTINGS = ImageSettings("reject", "classical", "png", 10**8, "bicubic-1", 4, 0, 192.0, 240, 480, variants=3)
IMAGES = Manifest("0" * 64, SETTINGS, (ShardEntry("images-000000", "0" * 64, 36_000 * 10**6, 36_000),))
SHAPE = (1024, 16, 16)
WORK = Work(SETTINGS, 36_000, sample_bytes=10**6, total_images=7_200_000, batch_size=16, crop_px=256)
PROFILE = MachineProfile(
    device="a GPU",
    date="2026-11-27",
    crop_px=256,
    extractor="numbers",
    networks="rrdb x4 with patch",
    step_batch=16,
    step_images_per_second=20.0,
    extractor_images_per_second=400.0,
    loader_images_per_second=50.0,
    decode_images_per_second={"fp16": 10_000.0, "uint8-zstd": 1000.0},
    feature_bytes={"fp16": 524_288.0, "uint8-zstd": 100_000.0},
    read_mb_per_second=3000.0,
)


def costs_on(cluster: Cluster, work: Work = WORK) -> dict[str, ModeCost]:
    return {cost.name: cost for cost in estimate(cluster, rates_of(cluster, None, SHAPE), work)}


def test_cost_equals_a_calculation_by_hand() -> None:
    costs = costs_on(CLUSTER)
    online, cached = costs["online"], costs["fp16"]
    assert cached.cache_bytes == 3 * 36_000 * 512 * 2**10
    assert online.hours == online.train_hours == pytest.approx(7_200_000 / (8 * 9) / 3600)
    assert cached.fill_hours == pytest.approx(3 * 36_000 / (8 * 90) / 3600)
    assert cached.train_hours == pytest.approx(7_200_000 / 80 / 3600)
    assert not cached.is_read_bound
    assert cached.read_mb_per_second_per_gpu == pytest.approx(10 * (1 + 0.524288))
    # 16 images on 8 GPUs: each saves the extractor on two, of 1/90 s each.
    assert cached.saved_ms_per_step == pytest.approx(2e3 / 90)
    assert cached.break_even_images == pytest.approx(
        3 * 36_000
    )  # an image is extracted once for the cache, or once online
    text = describe(list(costs.values()), CLUSTER, rates_of(CLUSTER, None, SHAPE), WORK, 2**30)
    assert "200.0 epochs" in text
    assert "take uint8-zstd: it saves 2.7 h of 27.8" in text
    assert "1,024 MiB per checkpoint, 200 GPU-hours for 401" in text


def test_cost_on_a_slow_disk_is_bound_by_reading() -> None:
    slow = dataclasses.replace(CLUSTER, read_mb_per_second=15.24288)
    cached = costs_on(slow)["fp16"]
    assert cached.is_read_bound
    assert cached.train_hours == pytest.approx(7_200_000 / (2 * 10) / 3600)
    assert cached.break_even_images == math.inf
    chosen, why = choose(list(costs_on(slow).values()))
    assert chosen.name == "online"
    assert "reading the cache would limit the throughput" in why


def test_short_run_does_not_pay_for_a_cache() -> None:
    chosen, why = choose(list(costs_on(CLUSTER, dataclasses.replace(WORK, total_images=100_000)).values()))
    assert chosen.name == "online"
    assert "shorter than the 108,000 images" in why


def test_cheap_extractor_is_not_worth_a_cache() -> None:
    chosen, why = choose(list(costs_on(dataclasses.replace(CLUSTER, extractor_images_per_second=2000)).values()))
    assert chosen.name == "online"
    assert "less than new crops in every epoch are worth" in why


def test_loaders_have_to_decode_too() -> None:
    rates = Rates(100.0, 100.0, 1e6, 50.0, {"uint8-zstd": 100.0}, {"uint8-zstd": 1000.0})
    online, cached, mapped = estimate(Cluster(gpus_per_node=1), rates, WORK)
    assert online.workers_per_gpu == 1  # 50 images/s
    assert cached.workers_per_gpu == 3  # 100 images/s of 1/50 + 1/100 s
    assert mapped.workers_per_gpu == 6  # 100 images/s of 1/50 + 3.5/100 s


def test_map_costs_the_cells_of_a_sub_image_once_and_reads_them_for_every_crop() -> None:
    rates = rates_of(CLUSTER, PROFILE, SHAPE)
    mapped = estimate(CLUSTER, rates, WORK)[-1]
    crops = (480 / 256) ** 2
    assert mapped.name == "map"
    assert mapped.cache_bytes == pytest.approx(36_000 * crops * 100_000)
    assert mapped.fill_hours == pytest.approx(36_000 * crops / (8 * 90) / 3600)
    assert mapped.read_mb_per_second_per_gpu == pytest.approx(10 * (1 + crops * 0.1))
    text = describe(estimate(CLUSTER, rates, WORK), CLUSTER, rates, WORK, 2**30)
    assert "map: crops at 225 places of a sub-image, on the grid of 16 px, instead of 3,249" in text
    assert "take map" not in text


def test_plan_for_a_larger_dataset_scales_what_depends_on_the_number_of_samples() -> None:
    small, large = costs_on(CLUSTER), costs_on(CLUSTER, dataclasses.replace(WORK, num_samples=10 * 36_000))
    for mode in ("uint8-zstd", "map"):
        assert large[mode].cache_bytes == pytest.approx(10 * small[mode].cache_bytes)
        assert large[mode].fill_hours == pytest.approx(10 * small[mode].fill_hours)
        assert large[mode].train_hours == small[mode].train_hours
        assert large[mode].read_mb_per_second_per_gpu == small[mode].read_mb_per_second_per_gpu


def test_rates_are_those_given_else_measured_else_assumed_and_named() -> None:
    bare = Cluster(read_mb_per_second=5.0)
    measured = rates_of(bare, PROFILE, SHAPE)
    assert measured.read_mb_per_second == 5.0
    assert measured.step_images_per_second == 20.0
    assert measured.feature_bytes["uint8-zstd"] == 100_000.0
    assert measured.assumed == ()
    assumed = rates_of(bare, None, SHAPE)
    assert assumed.feature_bytes["fp16"] == 512 * 2**10
    assert "step_images_per_second 10" in assumed.assumed
    assert not any("read_mb" in name for name in assumed.assumed)


def test_cluster_when_out_of_range_lists_every_fault() -> None:
    with pytest.raises(ConfigError, match=r"num_nodes=0 must be above 0; read_mb_per_second=-1 must be above 0"):
        dataclasses.replace(CLUSTER, num_nodes=0, read_mb_per_second=-1)
    with pytest.raises(ConfigError, match=r"price_per_gpu_hour=-2 must be 0 or above"):
        dataclasses.replace(CLUSTER, price_per_gpu_hour=-2)


def test_profile_is_read_as_written_and_refused_where_it_is_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    PROFILE.save(file)
    assert load_profile(file) == PROFILE
    PROFILE.require(crop_px=256, extractor="numbers", networks="rrdb x4 with patch")
    with pytest.raises(ConfigError, match=r"(?s)crop_px: the profile has 256, the run needs 128\n.*--measure"):
        PROFILE.require(crop_px=128, extractor="numbers", networks="rrdb x4 with patch")
    plain = json.loads(file.read_text())
    for change, fault in (
        ({"step_images_per_second": -1}, "step_images_per_second"),
        ({"feature_bytes": {"fp16": 1.0}}, "both of the same codecs"),
    ):
        file.write_text(json.dumps(plain | change))
        with pytest.raises(InputError, match=fault):
            load_profile(file)
    with pytest.raises(ConfigError, match="cannot read the profile"):
        load_profile(tmp_path / "none.json")


def test_job_when_given_shards_prints_every_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path, IMAGES)
    assert plan.main(["rrdb_sed_p_x4", "--data.shards", str(tmp_path), "--cluster.num-nodes", "4"]) == 0
    said = capsys.readouterr().out
    assert "4 machine(s) of 8 GPU(s)" in said
    assert "assumed, not measured: step_images_per_second 10" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(("online", "fp16", "uint8"))}
    assert rows["fp16"][1] == "512.0"
    assert "take " in said
    assert plan.main(["rrdb_sed_p_x4", "--data.shards", str(tmp_path), "--samples", "2000000"]) == 0
    assert "2,000,000 samples" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"samples=0\.0 must be above 0"):
        plan.main(["rrdb_sed_p_x4", "--data.shards", str(tmp_path), "--samples", "0"])
    with pytest.raises(ConfigError, match="rrdb_psnr_x4 uses no semantics"):
        plan.main(["rrdb_psnr_x4", "--data.shards", str(tmp_path)])


@pytest.mark.slow
def test_job_measures_this_machine_and_plans_with_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = str(write_preset(prepare_tiny_data(tmp_path), tmp_path / "preset.json"))
    assert plan.main([preset, "--measure"]) == 0
    assert "assumed" not in capsys.readouterr().out
    measured = load_profile(tmp_path / "machine-profile.json")
    assert measured.feature_bytes["fp16"] == 2 * 256 * 3 * 3
    assert plan.main([preset, "--cluster.num-nodes", "3"]) == 0
    assert "3 machine(s) of 8 GPU(s)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="crop_px: the profile has 48, the run needs 32"):
        plan.main([preset, "--data.crop-px", "32", "--data.canvas-px", "32"])

"""The cache of features is the same bytes whoever writes it: one process or three, undisturbed or killed ten times."""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
from harness import prepare_tiny_data, tiny_preset, write_shards
from sessions import lines_of, run_session

from jobs.ray_tasks import ray_session
from pipeline.config.schema import Preset
from pipeline.inference.features import fit_codec, plan_features, write_feature_dataset
from pipeline.inference.semantics import build_extractor
from shards.write.execution import SERIAL, Executor

NUM_KILLS = 10
# The codec that keeps most: what it learned from the data, beside the tars.
CODEC = "pca128"
TERMS = ("generator/pixel", "generator/adversarial", "discriminator/real", "discriminator/fake")


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("cached"))


@pytest.fixture(scope="module")
def undisturbed(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "features"
    write(preset, output)
    return output


def write(
    preset: Preset, output: Path, executor: Executor = SERIAL, codec: str | None = CODEC, source: str = "cached"
) -> None:
    """Do what the job does, in this process."""
    train = preset.train
    extractor = build_extractor(train.semantics, train.data.crop_px)
    semantics = dataclasses.replace(train.semantics, source=source)
    tasks = plan_features(output, train.data, semantics, extractor, codec)
    output.mkdir(exist_ok=True)
    write_feature_dataset(output, fit_codec(tasks, extractor), executor, num_gpus=0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def num_finished(folder: Path) -> int:
    return len(list(folder.glob("features-*.json")))


def test_cache_after_ten_kills_is_the_one_of_an_undisturbed_job(
    preset: Preset, undisturbed: Path, tmp_path: Path
) -> None:
    output, rng = tmp_path / "features", random.Random(7)
    num_shards = num_finished(undisturbed)
    interrupted = 0
    for kill in range(NUM_KILLS):
        # Forked: importing torch again would take most of the time.
        job = multiprocessing.get_context("fork").Process(target=write, args=(preset, output))
        job.start()
        least = num_shards * kill // NUM_KILLS
        while job.is_alive() and num_finished(output) < least:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        job.kill()
        job.join()
        interrupted += not (output / "manifest.json").is_file()
    assert interrupted >= NUM_KILLS // 2
    write(preset, output)
    assert contents(output) == contents(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("num_cpus", [1, 3])
def test_cache_by_one_process_and_by_three_is_the_same_bytes(
    preset: Preset, undisturbed: Path, tmp_path: Path, num_cpus: int
) -> None:
    with ray_session(num_cpus=num_cpus) as session:
        write(preset, tmp_path / "features", session.executor)
    assert contents(tmp_path / "features") == contents(undisturbed)


@pytest.mark.slow
def test_maps_by_one_process_and_by_three_are_the_same_bytes_and_can_be_trained_with(
    preset: Preset, tmp_path: Path
) -> None:
    write(preset, tmp_path / "alone", source="mapped")
    with ray_session(num_cpus=3) as session:
        write(preset, tmp_path / "features", session.executor, source="mapped")
    assert contents(tmp_path / "features") == contents(tmp_path / "alone")
    changes = {"semantics.source": "mapped", "semantics.cache": str(tmp_path / "features"), "report.trackers": []}
    changes["data.shards"] = str(preset.train.data.shards)
    run_session(tiny_preset(tmp_path, **changes, **{"report.validation_sets": []}), tmp_path / "run")
    losses = [line["discriminator/real"] for line in lines_of(tmp_path / "run") if "discriminator/real" in line]
    assert np.isfinite(losses).all()
    assert len(losses) >= 2


@pytest.mark.slow
def test_run_of_50_steps_with_cached_features_has_the_losses_of_one_with_online_features(
    preset: Preset, tmp_path: Path
) -> None:
    # As many variants as the run has epochs: with fewer, crops repeat where online ones are new.
    shards = dataclasses.replace(preset.shards, variants=7, output=tmp_path / "shards")
    write_shards(shards)
    changes = {"data.shards": str(shards.output), "schedule.total_images": 200, "schedule.pixel_only_images": 0}
    changes |= {
        "generator.initial_weights": "random",
        "discriminator.residual": True,
        "semantics.architecture": "timm:tf_efficientnet_lite0",
        "semantics.layer": 3,
        "semantics.weights": "package",
        "report.validation_sets": [],
        "report.trackers": [],
    }
    write(tiny_preset(tmp_path, **changes), tmp_path / "features", codec=None)
    online, cached = {"semantics.source": "online"}, {"semantics.source": "cached"}
    runs = {"online": online, "cached": cached, "shuffled": online | {"semantics.shuffled": True}}
    losses = {}
    for name, change in runs.items():
        run_session(tiny_preset(tmp_path, **changes, **change), tmp_path / name)
        losses[name] = np.array([[line[term] for term in TERMS] for line in lines_of(tmp_path / name)])
    assert len(losses["online"]) == 50
    cached_moved, shuffled_moved = (np.abs(losses[name] / losses["online"] - 1) for name in ("cached", "shuffled"))
    # Adam enlarges any difference while gradients are small: the first step tells most; other semantics move it more.
    assert 0 < 5 * cached_moved[0].max() < shuffled_moved[0].max()
    assert cached_moved.max() < 0.01

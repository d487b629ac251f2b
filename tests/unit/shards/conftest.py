"""Small photos, and datasets written from them in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.config import ShardConfig
from shards.format.sidecars import find_finished
from shards.write.generations import extend, publish, read_generations
from shards.write.plan import Plan, make_plan, write_plan
from shards.write.sources import discover
from shards.write.survey import SurveyTask, reject_duplicates, survey
from shards.write.tasks import shard_tasks, write_shard

SIZES_PX = [(70, 90), (64, 64), (101, 67), (33, 48)]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four photos of odd sizes; never written to."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, (height_px, width_px) in enumerate(SIZES_PX):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (height_px // 8 + 1, width_px // 8 + 1, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height_px, :width_px]
        name = f"deep/photo.{number}.png" if number == 2 else f"photo.{number}.png"
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def make_config(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ShardConfig]:
    """Build a configuration over the photos; keywords change it."""

    def make(**changes: object) -> ShardConfig:
        values: dict[str, object] = {
            "source": (photos,),
            "output": tmp_path_factory.mktemp("output"),
            "degradation": "classical",
            "scale": 4,
            "sub_image_px": 32,
            "stride_px": 16,
            "variants": 3,
            "seed": 5,
            "shard_size_mib": 0.06,
            **changes,
        }
        return ShardConfig(**values)  # type: ignore[arg-type]  # values of mixed types by design

    return make


def plan_of(config: ShardConfig) -> Plan:
    """Survey and plan in this process."""
    task = SurveyTask(discover(config.source), config.sub_image_px, config.max_pixels, {})
    known = {photo.name for plan in read_generations(config.output) for photo in plan.photos}
    return make_plan(config, *reject_duplicates(survey(task), {}, known))


def write_here(config: ShardConfig) -> Path:
    """Write a dataset in this process; returns its folder."""
    folder = config.output
    folder.mkdir(exist_ok=True)
    plans = extend(folder, plan_of(config))
    paths = {file.name: file.path for file in discover(config.source)}
    entries = {}
    for plan in plans:
        write_plan(folder, plan)
        for task in shard_tasks(plan, folder, paths):
            entries[task.shard.name] = find_finished(task.folder, task.shard.name, task.header) or write_shard(task)
    publish(folder, plans, entries)
    return folder


@pytest.fixture(name="plan_of")
def plan_of_fixture() -> Callable[[ShardConfig], Plan]:
    """Give tests `plan_of`."""
    return plan_of


@pytest.fixture(name="write_here")
def write_here_fixture() -> Callable[[ShardConfig], Path]:
    """Give tests `write_here`."""
    return write_here


@pytest.fixture(scope="session")
def dataset(make_config: Callable[..., ShardConfig]) -> Path:
    """A finished classical dataset of several shards; never written to."""
    return write_here(make_config())

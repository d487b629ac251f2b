"""What the survey cuts is what the shards hold; what is missing or damaged of it is cut again."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shards.write.survey
from shards.config import ShardConfig
from shards.errors import ShardError
from shards.format.photos import DecodeError
from shards.format.remote import RemotePath
from shards.format.settings import ImageSettings
from shards.write.cutting import CutPhoto
from shards.write.plan import Plan, make_plan, settings_of, write_plan
from shards.write.sources import discover
from shards.write.spool import Spool
from shards.write.survey import SurveyTask, reject_duplicates, survey
from shards.write.tasks import shard_tasks, write_shard

SHA256 = "5" * 64
FACTS = {"height_px": 48, "width_px": 64}


def cut_photo(settings: ImageSettings) -> CutPhoto:
    return CutPhoto(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8), settings)


@pytest.fixture(params=["classical", "realworld"])
def spool(request: pytest.FixtureRequest, make_config: Callable[..., ShardConfig], tmp_path: Path) -> Spool:
    return Spool(tmp_path, settings_of(make_config(degradation=request.param)))


@pytest.fixture
def file(spool: Spool) -> Path:
    """The one file of a spool that holds one photo."""
    spool.keep(SHA256, FACTS, cut_photo(spool.settings))
    (path,) = spool.folder.rglob("*.zip")
    return path


def test_spool_gives_back_what_was_cut(spool: Spool, file: Path) -> None:
    photo = cut_photo(spool.settings)
    assert len(photo) == 6
    assert (photo[0].lq_png is not None) == spool.settings.has_lq
    assert spool.facts(SHA256) == FACTS
    with spool.open(SHA256) as spooled:
        assert [spooled.read(number) for number in range(6)] == [photo[number] for number in range(6)]
        assert spooled.read(6) is None
    assert spool.facts("6" * 64) is None
    others = dataclasses.replace(spool, settings=dataclasses.replace(spool.settings, stride_px=8))
    assert others.facts(SHA256) is None
    spool.drop(SHA256)
    assert spool.facts(SHA256) is None
    spool.drop(SHA256)
    others.clear()
    assert not list(spool.folder.iterdir())


def test_spool_when_any_byte_is_flipped_or_cut_never_gives_other_bytes(spool: Spool, file: Path) -> None:
    photo = cut_photo(spool.settings)
    expected = [photo[number] for number in range(6)]
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        contents_end = archive.start_dir
    # Every byte of the directory behind the contents, and some of the contents.
    damaged = [(place, whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
               for place in [*range(0, contents_end, 97), *range(contents_end, len(whole))]]  # fmt: skip
    damaged += [(size, whole[:size]) for size in range(0, len(whole), 511)]
    num_missing = 0
    for place, data in damaged:
        file.write_bytes(data)
        assert spool.facts(SHA256) in (FACTS, None), place
        with spool.open(SHA256) as spooled:
            found = [spooled.read(number) for number in range(6)]
        assert all(mine in (None, its) for mine, its in zip(found, expected, strict=True)), place
        num_missing += found.count(None)
    assert num_missing > len(damaged)


def test_spool_beside_an_object_store_is_none(make_config: Callable[..., ShardConfig]) -> None:
    assert Spool.beside(RemotePath("s3://bucket/shards"), settings_of(make_config())) is None


def survey_of(config: ShardConfig) -> SurveyTask:
    spool = Spool.beside(config.output, settings_of(config))
    return SurveyTask(discover(config.source), config.sub_image_px, config.max_pixels, {}, config.alpha, spool)


def write_all(plan: Plan, config: ShardConfig, source: Path) -> dict[str, bytes]:
    write_plan(config.output, plan)
    for task in shard_tasks(plan, config.output, {photo.name: source / photo.name for photo in plan.photos}):
        write_shard(task)
    return {path.name: path.read_bytes() for path in config.output.iterdir() if path.is_file()}


@pytest.mark.parametrize("degradation", ["classical", "realworld"])
def test_shards_when_their_photos_were_cut_before_are_the_same_and_need_no_photo(
    degradation: str, make_config: Callable[..., ShardConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_config(degradation=degradation)
    plan = make_plan(bare, *reject_duplicates(survey(dataclasses.replace(survey_of(bare), spool=None)), {}))
    expected = write_all(plan, bare, bare.source[0].parent)

    config = make_config(degradation=degradation)
    found = survey(survey_of(config))
    assert make_plan(config, *reject_duplicates(found, {})) == plan

    def refuse(*arguments: object, **settings: object) -> None:
        raise DecodeError("unreadable", "it was decoded before")

    with monkeypatch.context() as patch:
        patch.setattr(shards.write.survey, "read_photo", refuse)
        assert survey(survey_of(config)) == found
    assert write_all(plan, config, tmp_path / "nowhere") == expected

    # Of what is damaged, the photo is asked again.
    spooled = sorted(config.output.rglob("*.zip"))
    assert len(spooled) == len(plan.photos)
    data = bytearray(spooled[0].read_bytes())
    data[len(data) // 2] ^= 1
    spooled[0].write_bytes(data)
    spooled[1].unlink()
    for path in config.output.glob("images-*"):
        path.unlink()
    with pytest.raises(ShardError, match="disappeared while the job ran"):
        write_all(plan, config, tmp_path / "nowhere")
    assert write_all(plan, config, config.source[0].parent) == expected


def test_photo_when_huge_is_not_cut_by_the_survey(
    make_config: Callable[..., ShardConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    monkeypatch.setattr(shards.write.survey, "MAX_SPOOLED_PIXELS", 64 * 64)
    found = survey(survey_of(config))
    assert [photo.name for photo in found if survey_of(config).spool.facts(photo.sha256)] == [
        photo.name for photo in found if photo.height_px * photo.width_px <= 64 * 64
    ]
    assert len(list(config.output.rglob("*.zip"))) == 2


def test_photo_when_this_machine_encodes_otherwise_is_not_cut(make_config: Callable[..., ShardConfig]) -> None:
    config = make_config()
    spool = Spool(config.output, dataclasses.replace(settings_of(config), encoder="png of tomorrow"))
    with pytest.raises(ShardError, match="this machine would write other bytes"):
        survey(dataclasses.replace(survey_of(config), spool=spool))
    plan = make_plan(config, *reject_duplicates(survey(survey_of(config)), {}))
    shutil.rmtree(config.output / ".spool")
    task = shard_tasks(plan, config.output, {photo.name: config.source[0].parent / photo.name for photo in plan.photos})
    with pytest.raises(ShardError, match="the same zlib, on every machine"):
        write_shard(
            dataclasses.replace(task[0], settings=dataclasses.replace(task[0].settings, encoder="png of tomorrow"))
        )

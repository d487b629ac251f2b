"""Photos that cannot be sharded, and shards that cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Main
from PIL import Image

import jobs.cache_features
import jobs.shard
import jobs.train_sed


def test_shard_when_the_source_is_missing(refuse: Callable[..., None]) -> None:
    refuse(jobs.shard.main, ["--source", "none", "--exclude"], "error: --source none does not exist", "give a folder")


def test_shard_when_the_source_is_empty(refuse: Callable[..., None], here: Path) -> None:
    (here / "empty").mkdir()
    refuse(jobs.shard.main, ["--source", "empty", "--exclude"], "--source empty holds no image; got an empty folder")


def test_shard_when_the_source_holds_no_images(refuse: Callable[..., None], here: Path) -> None:
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("no photo")
    (here / "texts" / "b.pdf").write_text("no photo")
    refuse(jobs.shard.main, ["--source", "texts", "--exclude"], "got 2 other file(s), such as a.txt", ".jpg", ".png")


def test_shard_when_the_source_is_a_file(refuse: Callable[..., None], here: Path) -> None:
    Image.new("RGB", (9, 9)).save(here / "one.png")
    refuse(jobs.shard.main, ["--source", "one.png", "--exclude"], "--source one.png is not a folder")


@pytest.mark.parametrize("main", [jobs.train_sed.main, jobs.cache_features.main])
def test_shards_when_there_are_none_yet(refuse: Callable[..., None], main: Main) -> None:
    refuse(
        main, [], "no shards here yet: demo/shards does not exist", "run `python jobs/shard.py --output demo/shards`"
    )


@pytest.mark.parametrize("main", [jobs.train_sed.main, jobs.cache_features.main])
def test_shards_when_unfinished(refuse: Callable[..., None], here: Path, prepared: Path, main: Main) -> None:
    shutil.copytree(prepared / "shards", here / "demo" / "shards")
    (here / "demo" / "shards" / "manifest.json").unlink()
    refuse(main, [], "demo/shards holds tars but no manifest.json: the job that wrote them did not finish")


def test_shards_when_the_manifest_is_damaged(refuse: Callable[..., None], here: Path, prepared: Path) -> None:
    shutil.copytree(prepared / "shards", here / "shards")
    manifest = here / "shards" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"variants": 2', b'"variants": 3'))
    arguments = [str(prepared / "preset.json"), "--data.shards", "shards"]
    refuse(jobs.train_sed.main, arguments, "shards/manifest.json is damaged")


def test_shards_when_smaller_than_the_crop(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--data.crop-px", "80", "--data.canvas-px", "80", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "the step reads 80 px of HR", "have 64 px", "lower --data.crop-px")
    refuse(jobs.train_sed.main, [*arguments, "--dry-run"], "the step reads 80 px of HR", "have 64 px")

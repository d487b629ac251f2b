"""What is lost or assumed of a photo is said in its plan, its samples and the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photo_files import encode, gradient, icc_profile
from PIL import Image

from shards.config import ShardConfig
from shards.format.manifest import read_manifest
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder
from shards.write.dataset import describe, survey_and_plan, write
from shards.write.execution import SERIAL
from shards.write.generations import read_generations
from shards.write.sources import discover


def shard(config: ShardConfig) -> str:
    sources = discover(config.source)
    plans = survey_and_plan(config, sources, (), SERIAL)
    write(plans, config.output, sources, SERIAL)
    return describe(plans, sources)


def notes_of_samples(folder: Path) -> dict[str, tuple[str, ...]]:
    images = ShardSet.open(folder)
    records = [images.sample(index).record for index in range(len(images))]
    return {record.source.rpartition("/")[2]: record.notes for record in records}


def test_notes_are_in_samples_and_counted_in_the_manifest(
    make_config: Callable[..., ShardConfig], photos: Path, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    shutil.copytree(photos, source)
    picture = gradient(48, 48)
    deep = picture[..., 0].astype(np.uint16) * 257
    (source / "deep.png").write_bytes(encode(Image.fromarray(deep)))
    (source / "odd.png").write_bytes(encode(Image.fromarray(picture), icc_profile=b"no profile"))
    holed = Image.fromarray(picture[::-1].copy()).convert("RGBA")
    holed.putpixel((0, 0), (0, 0, 0, 0))
    profile = icc_profile("linear", 1.0)
    (source / "both.png").write_bytes(encode(holed, icc_profile=profile))
    config = make_config(source=(source,))
    text = shard(config)
    manifest = read_manifest(config.output)
    assert dict(manifest.photo_notes) == {"colour-space": 1, "depth": 1, "profile": 1, "transparency": 1}
    assert "1 photo(s): colour profile unreadable, taken as sRGB" in text
    found = notes_of_samples(config.output)
    assert found["odd.png"] == ("profile",)
    assert found["both.png"] == ("colour-space", "transparency")
    assert found["photo.0.png"] == ()
    assert not verify_folder(config.output).faults

    # The notes of photos that are added later are counted in their generation's manifest, and the first one stays.
    (source / "later.png").write_bytes(encode(Image.fromarray(deep[::-1].copy())))
    before = (config.output / "manifest.json").read_bytes()
    shard(config)
    assert (config.output / "manifest-000.json").read_bytes() == before
    assert read_manifest(config.output).photo_notes["depth"] == 2
    assert [photo.notes for plan in read_generations(config.output)[1:] for photo in plan.photos] == [("depth",)]


def test_documents_say_nothing_of_notes_where_there_are_none(dataset: Path) -> None:
    # So datasets of plain photos have the bytes that they had before there were notes.
    for name in ("manifest.json", "plan.json"):
        assert b"notes" not in (dataset / name).read_bytes()
    assert b"notes" not in next(dataset.glob("*.tar")).read_bytes()

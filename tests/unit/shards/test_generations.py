"""Photos added later: shards of their own, and not a byte of the older ones changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.config import ShardConfig
from shards.errors import ShardError
from shards.format.manifest import find_generation, read_manifest
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard
from shards.write.generations import extend, read_generations
from shards.write.plan import write_plan


def add_photo(source: Path, name: str, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / name)


def states(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()}


def faults_of(folder: Path) -> list[str]:
    contents = verify_folder(folder)
    found = (fault for shard in contents.shards for fault in verify_shard(folder, shard, contents.settings))
    return [str(fault) for fault in [*contents.faults, *found]]


@pytest.fixture
def grown(
    make_config: Callable[..., ShardConfig], write_here: Callable, photos: Path, tmp_path: Path
) -> tuple[ShardConfig, dict[str, tuple[bytes, int]]]:
    """A dataset of three generations, and its files at the first."""
    source = tmp_path / "photos"
    shutil.copytree(photos, source)
    config = make_config(source=(source,))
    write_here(config)
    first = states(config.output)
    add_photo(source, "a-new.png", 10)
    shutil.copy(source / "photo.1.png", source / "a-copy-named-before.png")
    write_here(config)
    add_photo(source, "deep/later.png", 11)
    write_here(config)
    return config, first


def test_photos_when_added_get_shards_of_their_own(grown: tuple) -> None:
    config, first = grown
    now = states(config.output)
    shards = [name for name in first if name.startswith("images-")]
    assert {name: now[name] for name in shards} == {name: first[name] for name in shards}
    assert now["plan.json"][0] == first["plan.json"][0]
    assert now["manifest-000.json"][0] == first["manifest.json"][0]
    assert sorted(now.keys() - first.keys() - {name for name in now if name.startswith("images-")}) == [
        "manifest-000.json",
        "manifest-001.json",
        "plan-001.json",
        "plan-002.json",
    ]
    manifest = read_manifest(config.output)
    old = read_manifest(config.output, 0)
    assert manifest.shards[: len(old.shards)] == old.shards
    assert [part.num_shards for part in manifest.generations] == [len(old.shards), 1, 1]
    names = [shard.name for shard in manifest.shards]
    assert names == [f"images-{number:06d}" for number in range(len(names))]
    assert [(reject.path, reject.reason) for reject in manifest.rejects] == [
        ("photos/a-copy-named-before.png", "duplicate")
    ]
    images = ShardSet.open(config.output)
    sources = {images.sample(index).record.source for index in images.range_of(len(names) - 1)}
    assert sources == {"photos/deep/later.png"}
    assert faults_of(config.output) == []


def test_older_generation_when_asked_for_is_found_by_its_digest(grown: tuple) -> None:
    config, _ = grown
    manifest = read_manifest(config.output)
    for number in (0, 1):
        assert find_generation(config.output, manifest, read_manifest(config.output, number).digest) == number
    assert find_generation(config.output, manifest, "0" * 64) is None


def test_generations_when_written_elsewhere_have_the_same_bytes(
    grown: tuple, write_here: Callable, photos: Path, tmp_path: Path
) -> None:
    config, _ = grown
    source = tmp_path / "elsewhere" / "photos"
    shutil.copytree(photos, source)
    other = dataclasses.replace(config, source=(source,), output=tmp_path / "other")
    write_here(other)
    for names in (["a-new.png", "a-copy-named-before.png"], ["deep/later.png"]):
        for name in names:
            shutil.copy(config.source[0] / name, source / name)
        write_here(other)
    assert {name: data for name, (data, _) in states(other.output).items()} == {
        name: data for name, (data, _) in states(config.output).items()
    }


def test_photos_when_removed_or_changed_are_refused_with_the_difference(grown: tuple, plan_of: Callable) -> None:
    config, _ = grown
    (source,) = config.source
    before = states(config.output)
    (source / "deep/later.png").rename(source.parent / "kept.png")
    with pytest.raises(ShardError, match=r"1 input\(s\) missing: photos/deep/later\.png"):
        extend(config.output, plan_of(config))
    (source.parent / "kept.png").rename(source / "deep/later.png")
    add_photo(source, "a-new.png", 12)
    add_photo(source, "more.png", 13)
    with pytest.raises(ShardError, match=r"1 input\(s\) changed: photos/a-new\.png\n  1 input\(s\) added: photos/more"):
        extend(config.output, plan_of(config))
    add_photo(source, "a-new.png", 10)
    with pytest.raises(ShardError, match=r"variants: 3 there, 9 now"):
        extend(config.output, plan_of(dataclasses.replace(config, variants=9)))
    assert states(config.output) == before


def test_photos_when_added_to_an_unfinished_generation_are_refused(grown: tuple, plan_of: Callable) -> None:
    config, _ = grown
    (source,) = config.source
    add_photo(source, "more.png", 13)
    plans = extend(config.output, plan_of(config))
    assert [plan.generation for plan in plans] == [0, 1, 2, 3]
    write_plan(config.output, plans[-1])  # killed here
    assert extend(config.output, plan_of(config)) == plans
    add_photo(source, "and-more.png", 14)
    with pytest.raises(ShardError, match=r"added: photos/and-more\.png; finish generation 3 without them first"):
        extend(config.output, plan_of(config))


def test_only_rejects_when_added_make_a_generation_without_shards(grown: tuple, write_here: Callable) -> None:
    config, _ = grown
    shutil.copy(config.source[0] / "photo.1.png", config.source[0] / "another-copy.png")
    write_here(config)
    manifest = read_manifest(config.output)
    assert manifest.generations[-1].num_shards == 0
    assert manifest.rejects[-1].path == "photos/another-copy.png"


@pytest.mark.parametrize("name", ["plan-001.json", "manifest-000.json"])
def test_documents_of_generations_when_damaged_or_gone_are_found(name: str, grown: tuple) -> None:
    config, _ = grown
    path = config.output / name
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert any(name in str(fault) for fault in verify_folder(config.output).faults), position
    path.write_bytes((config.output / name.replace("1.json", "2.json").replace("0.json", "1.json")).read_bytes())
    assert any(name in fault for fault in faults_of(config.output))
    path.unlink()
    if name.startswith("manifest"):
        assert any(name in fault for fault in faults_of(config.output))
    else:
        with pytest.raises(ShardError, match=r"has plan-002\.json but no plan-001\.json; restore it"):
            read_generations(config.output)

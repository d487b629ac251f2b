"""Paired folders: which LQ belongs to which photo, what is rejected, and what the shards then hold."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import small_shard_config
from PIL import Image

from jobs import preview, verify
from jobs.terminal import run_job
from pipeline.data.evaluation import set_images
from shards.config import ShardConfig
from shards.errors import InputError, ShardError
from shards.format.documents import read_sealed, seal
from shards.format.manifest import Manifest, read_manifest
from shards.format.png import decode_png
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard
from shards.write.dataset import describe, survey_and_plan, write
from shards.write.execution import SERIAL
from shards.write.generations import read_generations
from shards.write.repair import find_photos, repair
from shards.write.sources import SourceFile, list_folders, pair_photos

SCALE = 4


def noise(seed: int, height_px: int, width_px: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pairs, named in two ways, and one of each fault; LQ is noise, which no degradation of HR would be."""
    for number, (name, lq_name) in enumerate({"a.png": "a.png", "sub/b.png": "sub/bx4.bmp"}.items()):
        save(noise(number, 64 + 32 * number, 96), tmp_path / "HR" / name)
        save(noise(100 + number, 16 + 8 * number, 24), tmp_path / "LR" / lq_name)
    save(noise(3, 64, 64), tmp_path / "HR" / "alone.png")
    save(noise(4, 16, 16), tmp_path / "LR" / "orphan.png")
    save(noise(5, 64, 65), tmp_path / "HR" / "odd.png")
    save(noise(6, 16, 16), tmp_path / "LR" / "odd.png")
    save(noise(7, 64, 64), tmp_path / "HR" / "half.png")
    save(noise(8, 16, 16), tmp_path / "LR" / "half.png")
    half = tmp_path / "LR" / "half.png"
    half.write_bytes(half.read_bytes()[:300])
    return tmp_path


def config_of(folder: Path, **changes: object) -> ShardConfig:
    values = {
        "degradation": "paired",
        "lq_source": (folder / "LR",),
        "output": folder / "shards",
        "max_reject_fraction": 0.9,
    }
    return small_shard_config(folder / "HR", **(values | changes))


def sources_of(config: ShardConfig) -> tuple[SourceFile, ...]:
    return pair_photos(list_folders(config.source), list_folders(config.lq_source), config.scale)


def write_pairs(config: ShardConfig, *, cut: bool = False) -> Manifest:
    sources = sources_of(config)
    return write(survey_and_plan(config, sources, (), SERIAL, cut=cut), config.output, sources, SERIAL)


def faults_of(folder: Path) -> list[str]:
    contents = verify_folder(folder)
    found = (fault for shard in contents.shards for fault in verify_shard(folder, shard, contents.settings))
    return [str(fault) for fault in [*contents.faults, *found]]


def hashes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def test_shards_of_pairs_hold_the_given_lq_of_every_sub_image(folder: Path) -> None:
    manifest = write_pairs(config_of(folder))
    assert (manifest.images.degradation, manifest.images.recipe) == ("paired", "given")
    assert faults_of(folder / "shards") == []
    photos = {"HR/a.png": ("a.png", "a.png"), "HR/sub/b.png": ("sub/b.png", "sub/bx4.bmp")}
    seen = set()
    images = ShardSet.open(folder / "shards")
    for sample in (images.sample(index) for index in range(len(images))):
        record = sample.record
        name, lq_name = photos[record.source]
        hr, lq = (np.asarray(Image.open(folder / path)) for path in (f"HR/{name}", f"LR/{lq_name}"))
        top, left = record.position_px
        assert np.array_equal(decode_png(sample.part("png"), "hr"), hr[top : top + 64, left : left + 64])
        place = np.s_[top // SCALE : top // SCALE + 16, left // SCALE : left // SCALE + 16]
        assert np.array_equal(decode_png(sample.part("lq.png"), "lq"), lq[place])
        seen.add(record.source)
    assert seen == set(photos)


def test_halves_of_pairs_and_pairs_that_do_not_fit_are_rejected_by_name_and_reason(folder: Path) -> None:
    config = config_of(folder)
    rejects = {reject.path: (reject.reason, reject.detail) for reject in write_pairs(config).rejects}
    assert rejects == {
        "HR/alone.png": ("lq-missing", "LR has no alone nor alonex4"),
        "HR/half.png": ("truncated", rejects["HR/half.png"][1]),
        "HR/odd.png": ("lq-size", "65x64 px is not 4 times the 16x16 px of its LQ LR/odd.png"),
        "LR/orphan.png": ("hr-missing", "it is the LQ of no photo"),
    }
    assert rejects["HR/half.png"][1].startswith("its LQ LR/half.png: ")
    sources = sources_of(config)
    text = describe(survey_and_plan(config, sources, (), SERIAL, cut=False), sources)
    assert text.startswith("2 of 5 photos, ")
    assert "rejected: 4 (1 hr-missing, 1 lq-missing, 1 lq-size, 1 truncated)" in text


def test_shards_of_pairs_are_the_same_when_the_survey_cuts_them(folder: Path) -> None:
    # Photos of equal bytes with different LQ: the first by name counts, and its own LQ is the one that is stored.
    shutil.copy(folder / "HR" / "a.png", folder / "HR" / "z.png")
    save(noise(200, 16, 24), folder / "LR" / "z.png")
    write_pairs(config_of(folder))
    write_pairs(config_of(folder, output=folder / "cut"), cut=True)
    assert hashes_of(folder / "shards") == hashes_of(folder / "cut")
    assert not (folder / "cut" / ".spool").exists()
    again = config_of(folder, output=folder / "again")
    survey_and_plan(again, sources_of(again), (), SERIAL)  # cut once, and found again in the spool
    write_pairs(again, cut=True)
    assert hashes_of(folder / "shards") == hashes_of(folder / "again")


def test_changed_lq_is_refused_and_a_new_pair_is_a_generation(folder: Path) -> None:
    config = config_of(folder)
    write_pairs(config)
    save(noise(20, 64, 64), folder / "HR" / "new.png")
    save(noise(21, 16, 16), folder / "LR" / "newx4.png")
    assert [generation.num_samples for generation in write_pairs(config).generations] == [6, 1]
    save(noise(22, 16, 24), folder / "LR" / "a.png")
    with pytest.raises(InputError, match=r"1 input\(s\) changed: HR/a\.png"):
        write_pairs(config)


def test_damaged_shard_of_pairs_is_repaired_from_both_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(config_of(folder))
    before = hashes_of(folder / "shards")
    (folder / "shards" / "images-000000.tar").write_bytes(b"")
    plans, files = find_photos(folder / "shards", (folder / "HR",), (folder / "LR",))
    repair(folder / "shards", plans, files, {"images-000000.tar"}, SERIAL)
    assert hashes_of(folder / "shards") == before
    (folder / "shards" / "images-000000.tar").write_bytes(b"")
    capsys.readouterr()
    assert run_job(verify.main, [str(folder / "shards"), "--repair", str(folder / "HR")]) == 2
    assert "--repair-lq names 0 folder(s), --repair 1" in capsys.readouterr().err
    (folder / "LR" / "a.png").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the shards' photos, such as HR/a\.png"):
        find_photos(folder / "shards", (folder / "HR",), (folder / "LR",))


def test_plan_of_pairs_without_a_given_lq_is_damaged(folder: Path) -> None:
    write_pairs(config_of(folder))
    path = folder / "shards" / "plan.json"
    content = {key: value for key, value in read_sealed(path).items() if key != "digest"}
    del content["photos"][0]["lq"]
    path.write_bytes(seal(content))
    with pytest.raises(ShardError, match=r"HR/a\.png has no given LQ in a plan of pairs, or one in another"):
        read_generations(folder / "shards")


def test_preview_of_pairs_shows_the_given_lq_and_any_recipe_on_request(folder: Path) -> None:
    write_pairs(config_of(folder))
    for name, flags, num_panels in (("given", [], 2), ("recipe", ["--recipe", "bicubic-1", "--variants", "2"], 3)):
        output = folder / f"{name}.png"
        arguments = [str(folder / "shards"), "--samples", "1", "--output", str(output), *flags]
        assert run_job(preview.main, arguments) == 0
        assert Image.open(output).width == num_panels * 256 + (num_panels - 1) * 8
    sample = ShardSet.open(folder / "shards").sample(0)
    panel = np.asarray(Image.open(folder / "given.png"))[:256, 264:]
    assert np.array_equal(panel[::16, ::16], decode_png(sample.part("lq.png"), "lq"))
    # A part of the canvas is cut on the grid of LQ, so that both panels show the same place.
    cut = folder / "cut.png"
    flags = ["--samples", "1", "--output", str(cut), "--canvas-px", "60"]
    assert run_job(preview.main, [str(folder / "shards"), *flags]) == 0
    hr, lq = decode_png(sample.part("png"), "hr"), decode_png(sample.part("lq.png"), "lq")
    factor = -(-256 // 60)
    assert np.array_equal(np.asarray(Image.open(cut))[: 60 * factor : factor, : 60 * factor : factor], hr[:60, :60])
    second = np.asarray(Image.open(cut))[: 60 * factor, 60 * factor + 8 :]
    assert np.array_equal(second[:: 4 * factor, :: 4 * factor], lq[:15, :15])


def test_names_of_pairs_prefer_the_same_name_and_ending(tmp_path: Path) -> None:
    tiny = noise(0, 4, 4)
    for name in ("HR/a.png", "HR/ax4.png", "HR/b.jpg", "HR/c.png", "HR/photo.1.png"):
        save(tiny, tmp_path / name)
    for name in ("LR/a.png", "LR/ax4.png", "LR/b.png", "LR/b.jpg", "LR/c.bmp", "LR/c.jpg", "LR/photo.1x4.png"):
        save(tiny, tmp_path / name)
    files = pair_photos(list_folders([tmp_path / "HR"]), list_folders([tmp_path / "LR"]), SCALE)
    pairs = {file.name: file.lq.name if file.lq else file.reject.reason for file in files}
    assert pairs == {
        "HR/a.png": "LR/a.png",
        "HR/ax4.png": "LR/ax4.png",
        "HR/b.jpg": "LR/b.jpg",
        "HR/c.png": "lq-missing",
        "HR/photo.1.png": "LR/photo.1x4.png",
        "LR/b.png": "hr-missing",
    }
    (ambiguous,) = (file.reject.detail for file in files if file.name == "HR/c.png")
    assert ambiguous == "several files may be its LQ: LR/c.bmp, LR/c.jpg"


def test_training_and_evaluation_name_lq_alike(tmp_path: Path) -> None:
    for name in ("HR/a.png", "HR/b.png"):
        save(noise(0, 8, 8), tmp_path / name)
    for name in ("LRx4/a.png", "LRx4/bx4.png"):
        save(noise(1, 2, 2), tmp_path / name)
    pairs = pair_photos(list_folders([tmp_path / "HR"]), list_folders([tmp_path / "LRx4"]), SCALE)
    for file, image in zip(pairs, set_images(tmp_path, SCALE), strict=True):
        assert file.lq.path in image.lr


def test_two_folders_of_one_name_keep_their_names_apart(tmp_path: Path) -> None:
    for part in ("x", "y"):
        save(noise(ord(part), 8, 8), tmp_path / part / "HR" / "a.png")
        save(noise(1, 2, 2), tmp_path / part / "LR" / "a.png")
    hr, lq = ([tmp_path / part / side for part in ("x", "y")] for side in ("HR", "LR"))
    files = pair_photos(list_folders(hr), list_folders(lq), SCALE)
    assert [(file.name, file.lq.name) for file in files] == [("HR/a.png", "LR/a.png"), ("HR~2/a.png", "LR~2/a.png")]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lq_source": ()}, r"lq_source names 0 folder\(s\) for the 1 of source"),
        ({"degradation": "classical"}, 'degradation="classical" makes its own LQ images'),
        ({"recipe": "realesrgan-1"}, "not for paired shards, whose LQ images are given"),
    ],
)
def test_settings_of_pairs_that_contradict_each_other_are_refused(changes: dict, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        config_of(tmp_path, **changes)


def test_manifest_of_pairs_needs_no_recipe(folder: Path, make_config: Callable[..., ShardConfig]) -> None:
    write_pairs(config_of(folder))
    settings = read_manifest(folder / "shards").images
    assert settings.has_lq
    assert not settings.has_recipe
    assert dataclasses.replace(settings, degradation="realworld").side_px == {"png": 64}

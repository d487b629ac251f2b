"""Rules of curation: what they remove, what they count, and that nothing else about a dataset changes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curated_photos import save_jpeg, write_spoiled_photos
from harness import photo, small_shard_config, write_pairs
from PIL import Image

from shards.config import ShardConfig
from shards.errors import InputError, ShardError
from shards.format.curation import CurationRules, ScoreRules, pack_scores, unpack_scores
from shards.format.documents import seal
from shards.format.manifest import Manifest, read_manifest
from shards.format.png import decode_png
from shards.format.rejects import Reject
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard
from shards.schema import parse
from shards.write.dataset import describe, survey_and_plan, write
from shards.write.execution import SERIAL, Executor
from shards.write.generations import read_generations
from shards.write.repair import find_photos, repair
from shards.write.sources import discover

ALL_RULES = CurationRules(
    photo=ScoreRules(min_sharpness=0.5, max_blockiness=1.3, max_flat_share=0.6, min_complexity=1.0),
    sub_image=ScoreRules(max_flat_share=0.5),
    near_duplicate_bits=40,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_spoiled_photos(tmp_path / "photos")


def config_of(source: Path, output: Path, rules: CurationRules, **changes: Any) -> ShardConfig:
    return small_shard_config(source, output, curation=rules, **changes)


def write_shards(config: ShardConfig) -> Manifest:
    files, excluded = discover(config.source), discover(config.exclude, flag="--exclude")
    return write(survey_and_plan(config, files, excluded, SERIAL), config.output, files, SERIAL)


def reasons(rejects: Iterable[Reject]) -> dict[str, str]:
    return {reject.path.rpartition("/")[2].removesuffix(".png"): reject.reason for reject in rejects}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "status.json"}


def faults_of(folder: Path) -> list[str]:
    found = verify_folder(folder)
    faults = (fault for shard in found.shards for fault in verify_shard(folder, shard, found.settings))
    return [str(fault) for fault in [*found.faults, *faults]]


def test_rules_remove_what_they_name_and_count_all_of_it(source: Path, tmp_path: Path) -> None:
    rules = dataclasses.replace(ALL_RULES, photo=dataclasses.replace(ALL_RULES.photo, min_complexity=1.5))
    manifest = write_shards(config_of(source, tmp_path / "shards", rules))
    assert reasons(manifest.rejects) == {
        "blocky": "blocky",
        "blurred": "blurred",
        "flat": "flat",
        "weak": "low-complexity",
        "a_small_copy": "near-duplicate",
    }
    details = {reject.reason: reject.detail for reject in manifest.rejects}
    assert details["flat"] == "flat_share 1.000 is above max_flat_share=0.6"
    assert details["near-duplicate"].endswith("of 256 bits from photos/good0.png")
    # Of 4 x 5 sub-images of half.png, those at columns 96 and 128 are flat for more than half of their width.
    sources = Counter(sample.record.source for sample in ShardSet.open(tmp_path / "shards").samples_of(0))
    for number in range(1, len(manifest.shards)):
        sources += Counter(sample.record.source for sample in ShardSet.open(tmp_path / "shards").samples_of(number))
    assert sources == {"photos/good0.png": 20, "photos/good1.png": 20, "photos/good2.png": 20, "photos/half.png": 12}
    assert manifest.dropped_sub_images == {"flat": 8}
    assert manifest.images.curation == rules
    assert faults_of(tmp_path / "shards") == []


def test_kept_sub_images_are_byte_for_byte_those_of_a_dataset_without_rules(source: Path, tmp_path: Path) -> None:
    def samples(folder: Path) -> dict[str, dict[str, bytes]]:
        images = ShardSet.open(folder)
        return {
            sample.key: dict(sample.members)
            for number in range(len(images.manifest.shards))
            for sample in images.samples_of(number)
        }

    write_shards(config_of(source, tmp_path / "all", CurationRules()))
    write_shards(config_of(source, tmp_path / "curated", ALL_RULES))
    everything, curated = samples(tmp_path / "all"), samples(tmp_path / "curated")
    assert 0 < len(curated) < len(everything)
    assert curated.items() <= everything.items()


def test_dataset_without_rules_says_nothing_of_curation(source: Path, tmp_path: Path) -> None:
    write_shards(config_of(source, tmp_path / "shards", CurationRules()))
    for name in ("manifest.json", "plan.json"):
        text = (tmp_path / "shards" / name).read_text()
        assert not any(word in text for word in ("curation", "scores", "perceptual_hash", "dropped_sub_images"))


def test_recorded_scores_remove_nothing_and_are_in_the_plan_for_every_sub_image(source: Path, tmp_path: Path) -> None:
    config = config_of(source, tmp_path / "shards", CurationRules(record_scores=True))
    manifest = write_shards(config)
    (plan,) = read_generations(config.output)
    assert not manifest.rejects
    assert not manifest.dropped_sub_images
    tables = {entry.name: unpack_scores(entry.scores or "") for entry in plan.photos}
    assert sum(len(table) - 1 for table in tables.values()) == manifest.num_samples == plan.num_samples
    assert all(entry.perceptual_hash for entry in plan.photos)
    assert tables["photos/flat.png"].tolist() == [[0, 1000, 1000, 0]] * 17
    summary = describe((plan,), discover(config.source))
    assert f"dropped sub-images of these photos: 0 of {manifest.num_samples}" in summary
    assert "  sub-image sharpness: " in summary


def reversed_map(function: Any, items: Iterable[Any], **_: Any) -> Iterator[tuple[Any, Any]]:
    return ((item, function(item)) for item in reversed([*items]))


@pytest.mark.parametrize("spool", [True, False])
def test_bytes_do_not_depend_on_the_order_of_work_nor_on_a_run_that_was_stopped(
    source: Path, tmp_path: Path, spool: bool
) -> None:
    write_shards(config_of(source, tmp_path / "expected", ALL_RULES))
    config = config_of(source, tmp_path / "shards", ALL_RULES, spool=spool)
    files, backwards = discover(config.source), Executor(reversed_map, SERIAL.progress, SERIAL.say)
    survey_and_plan(config, files, (), backwards)  # and killed; a spool remains
    if spool:
        first, second, *_ = sorted((config.output / ".spool").rglob("*.zip"))
        first.write_bytes(first.read_bytes()[:2000])
        second.unlink()
    write(survey_and_plan(config, files, (), backwards), config.output, files, backwards)
    assert contents(config.output) == contents(tmp_path / "expected")
    write(survey_and_plan(config, files, (), SERIAL), config.output, files, SERIAL)
    assert contents(config.output) == contents(tmp_path / "expected")


def test_corrupt_shards_are_repaired_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    config = config_of(source, tmp_path / "shards", ALL_RULES)
    write_shards(config)
    expected = contents(config.output)
    (config.output / "images-000000.tar").write_bytes(b"none")
    plans, files = find_photos(config.output, config.source)
    repair(config.output, plans, files, ["images-000000.tar"], SERIAL)
    assert contents(config.output) == expected


def test_pairs_are_scored_by_hr_and_dropped_together(source: Path, tmp_path: Path) -> None:
    hr = [np.array(Image.open(source / f"{name}.png")) for name in ("good0", "half", "flat")]
    pairs = write_pairs(config_of(source, tmp_path / "unused", ALL_RULES), tmp_path, hr)
    manifest = read_manifest(pairs.output)
    assert {reject.path: reject.reason for reject in manifest.rejects} == {"HR/2.png": "flat"}
    assert manifest.dropped_sub_images == {"flat": 8}
    images = ShardSet.open(pairs.output)
    assert len(images) == 20 + 12
    for sample in (images.sample(number) for number in range(len(images))):
        hr_part, lq_part = (decode_png(sample.part(kind), sample.key) for kind in ("png", "lq.png"))
        assert (lq_part == 255 - hr_part[::4, ::4]).all()
    assert faults_of(pairs.output) == []


def test_photo_of_which_no_sub_image_remains_is_rejected_with_the_counts(source: Path, tmp_path: Path) -> None:
    rules = CurationRules(sub_image=ScoreRules(max_flat_share=0.5, min_sharpness=0.5))
    manifest = write_shards(config_of(source, tmp_path / "shards", rules))
    found = {reject.path: reject for reject in manifest.rejects}
    assert found["photos/flat.png"].reason == found["photos/blurred.png"].reason == "no-sub-images"
    assert found["photos/flat.png"].detail == "rules drop all 16 sub-images: 16 flat"
    assert found["photos/blurred.png"].detail == "rules drop all 20 sub-images: 20 blurred"


def test_near_duplicate_of_an_evaluation_image_is_rejected_and_its_larger_copy_too(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "Set").mkdir()
    save_jpeg(Image.open(source / "good1.png").resize((120, 100)), tmp_path / "Set" / "one.png", 60)
    config = config_of(source, tmp_path / "shards", CurationRules(near_duplicate_bits=40), exclude=(tmp_path / "Set",))
    manifest = write_shards(config)
    found = {reject.path: reject for reject in manifest.rejects}
    assert found["photos/good1.png"].reason == "near-duplicate"
    assert found["photos/good1.png"].detail.endswith("of 256 bits from the evaluation image Set/one.png")
    # The weak pattern averages to gray, as the flat photo does.
    assert found.keys() == {"photos/good1.png", "photos/a_small_copy.png", "photos/weak.png"}


def test_decisions_about_earlier_photos_stay_when_larger_copies_are_added(source: Path, tmp_path: Path) -> None:
    # Enlarged copies are blurred, too; this is about near-duplicates.
    rules = CurationRules(sub_image=ALL_RULES.sub_image, near_duplicate_bits=40)
    config = config_of(source, tmp_path / "shards", rules)
    before = write_shards(config)
    shards = {entry.name: (config.output / f"{entry.name}.tar").read_bytes() for entry in before.shards}
    for name in ("good0", "good2"):
        image = Image.open(source / f"{name}.png")
        image.resize((image.width * 2, image.height * 2)).save(source / f"0-{name}.png")
    Image.fromarray(photo(9, 128, 128)).save(source / "new.png")
    after = write_shards(config)
    assert {name: (config.output / f"{name}.tar").read_bytes() for name in shards} == shards
    assert before.rejects == tuple(reject for reject in after.rejects if "/0-" not in reject.path)
    added = {reject.path: reject for reject in after.rejects if "/0-" in reject.path}
    assert {path: reject.reason for path, reject in added.items()} == {
        "photos/0-good0.png": "near-duplicate",
        "photos/0-good2.png": "near-duplicate",
    }
    assert added["photos/0-good0.png"].detail.endswith("from photos/good0.png")
    assert after.num_samples == before.num_samples + 9
    assert read_manifest(config.output, 0).dropped_sub_images == before.dropped_sub_images


def test_frames_of_one_folder_are_not_compared_but_those_of_others_are(tmp_path: Path) -> None:
    for folder, shift in (("a", 0), ("b", 0), ("c", 5)):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        for frame in range(3):
            moved = photo(1 if folder < "c" else 2, 150, 150)[: 140 - (folder == "b"), frame : frame + 140]
            Image.fromarray(moved).save(tmp_path / "videos" / folder / f"{frame + shift}.png")
    rules = CurationRules(near_duplicate_bits=40)
    config = config_of(tmp_path / "videos", tmp_path / "shards", rules, keep_together="folder", max_reject_fraction=1.0)
    manifest = write_shards(config)
    assert {reject.path for reject in manifest.rejects} == {f"videos/b/{frame}.png" for frame in range(3)}
    (tmp_path / "Set").mkdir()
    save_jpeg(Image.open(tmp_path / "videos" / "c" / "5.png"), tmp_path / "Set" / "c.png", 50)
    with_set = dataclasses.replace(config, output=tmp_path / "more", exclude=(tmp_path / "Set",))
    found = {reject.path: reject.reason for reject in write_shards(with_set).rejects}
    assert {found[f"videos/c/{frame}.png"] for frame in (5, 6, 7)} <= {"near-duplicate", "same-folder"}


def test_rules_count_for_no_fraction_of_rejects_but_something_must_remain(source: Path, tmp_path: Path) -> None:
    write_shards(config_of(source, tmp_path / "shards", ALL_RULES, max_reject_fraction=0.0))
    rules = CurationRules(photo=ScoreRules(min_complexity=60.0))
    with pytest.raises(InputError, match=r"no photo remains of 9 \(9 low-complexity\).*loosen the rules"):
        write_shards(config_of(source, tmp_path / "none", rules))
    assert not (tmp_path / "none" / "plan.json").exists()


def test_output_with_other_rules_is_refused(source: Path, tmp_path: Path) -> None:
    write_shards(config_of(source, tmp_path / "shards", ALL_RULES))
    other = dataclasses.replace(ALL_RULES, near_duplicate_bits=None)
    with pytest.raises(ShardError, match="curation: "):
        write_shards(config_of(source, tmp_path / "shards", other))


def test_plan_whose_scores_lack_a_row_is_refused(source: Path, tmp_path: Path) -> None:
    config = config_of(source, tmp_path / "shards", ALL_RULES)
    write_shards(config)
    path = config.output / "plan.json"
    content = json.loads(path.read_text())
    content["photos"][0]["scores"] = content["photos"][0]["scores"][:-16]
    path.write_bytes(seal({key: value for key, value in content.items() if key not in ("digest", "format_version")}))
    with pytest.raises(ShardError, match="not one row of scores per sub-image"):
        read_generations(config.output)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ScoreRules(max_flat_share=1.5), "max_flat_share=1.5 must be from 0 to 1"),
        (lambda: ScoreRules(min_sharpness=-0.1, min_complexity=float("nan")), "min_sharpness=-0.1.*min_complexity=nan"),
        (lambda: CurationRules(near_duplicate_bits=65), "near_duplicate_bits=65 must be from 0 to 64"),
        (
            lambda: small_shard_config(Path("photos"), sub_image_px=32, stride_px=16, curation=ALL_RULES),
            "sub_image_px=32 is too small for scores",
        ),
    ],
)
def test_values_out_of_range_are_refused(build: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build()


@pytest.mark.parametrize(
    "rules",
    [
        CurationRules(),
        ALL_RULES,
        CurationRules(near_duplicate_bits=0),
        CurationRules(record_scores=True),
        CurationRules(photo=ScoreRules(min_complexity=0.0)),
    ],
)
def test_rules_are_the_same_after_writing_and_reading(rules: CurationRules) -> None:
    assert parse(rules.to_plain(), CurationRules, "rules") == rules
    assert bool(rules.to_plain()) is (rules != CurationRules())


def test_scores_are_the_same_after_packing() -> None:
    scores = np.array([[0, 1, 65_535, 256], [4660, 2, 3, 4]], np.uint16)
    assert pack_scores(scores) == "00000001ffff01001234000200030004"
    assert unpack_scores(pack_scores(scores)).tolist() == scores.tolist()

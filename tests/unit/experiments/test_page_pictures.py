"""Pictures of a comparison: parts where the arms differ most, of photos that no arm chose, within a bounded size."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
from harness import photo
from PIL import Image
from synthetic_comparison import synthetic_comparison

from pipeline.experiments.page.looks import looks_of
from pipeline.experiments.page.panels import CROP_PX, MAX_PHOTOS, Panels, panels_of
from pipeline.experiments.results import ComparisonResults


def panels(results: ComparisonResults) -> Panels:
    return panels_of(results, looks_of(results))


def test_panels_have_all_methods_and_begin_with_the_baseline_and_the_best(tmp_path: Path) -> None:
    shown = panels(synthetic_comparison(tmp_path))
    assert [photo.name for photo in shown.photos] == ["photo0", "photo1", "photo2"]
    methods = list(shown.photos[0].uris)
    assert methods == ["bicubic", "P", "P+SeD", "P, shuffled semantics", "HR"]
    assert (methods[shown.left], methods[shown.right]) == ("P", "P+SeD")
    assert all(list(detail.uris) == methods for photo in shown.photos for detail in photo.details)
    rows = shown.photos[0].table.rows
    assert list(rows) == methods[:-1]
    assert not any(cell.is_best for cells in rows.values() for cell in cells)


def test_part_shown_is_where_the_arms_differ(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, photos={"set/large": photo(1, 500, 600)})
    for arm in results.arms:
        Image.fromarray(photo(1, 500, 600)).save(results.pictures / arm.name / "set" / "large.png")
    spoiled = photo(1, 500, 600)
    spoiled[400:440, 500:540] //= 2
    num_spoiled = int((spoiled != photo(1, 500, 600)).any(axis=2).sum())
    Image.fromarray(spoiled).save(results.pictures / "arm1" / "set" / "large.png")
    (shown,) = panels(results).photos
    assert (shown.width_px, shown.height_px) == (CROP_PX, CROP_PX)
    assert num_differing(shown.uris["P"], shown.uris["P+SeD"]) == num_spoiled
    first = shown.details[0].uris  # as large as the spoiled part
    assert num_differing(first["P"], first["P+SeD"]) == num_spoiled
    assert first["P"] == first["P, shuffled semantics"] == first["HR"]


def num_differing(one: str, other: str) -> int:
    pictures = [decoded(uri) for uri in (one, other)]
    return int((pictures[0] != pictures[1]).any(axis=2).sum())


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_equal_arms_show_the_middle_without_details(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, photos={"set/one": photo(1, 300, 300)})
    for arm in results.arms:
        Image.fromarray(photo(1, 300, 300)).save(results.pictures / arm.name / "set" / "one.png")
    (shown,) = panels(results).photos
    assert shown.details == []
    assert shown.width_px == CROP_PX


def test_photos_are_few_and_evenly_spread(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, photos={f"set/{number:02}": photo(number, 48, 48) for number in range(19)})
    shown = [photo.name for photo in panels(results).photos]
    assert shown == ["00", "02", "04", "07", "09", "11", "14", "16"]
    assert len(shown) == MAX_PHOTOS


def test_many_arms_show_fewer_photos(tmp_path: Path) -> None:
    photos = {f"set/{number:02}": photo(number, 40, 40) for number in range(8)}
    results = synthetic_comparison(tmp_path, titles=[f"arm {number}" for number in range(20)], photos=photos)
    shown = panels(results)
    assert len(shown.photos) == 4
    assert len(shown.photos[0].uris) == 22


def test_photo_whose_pictures_are_missing_or_differ_in_size_is_named(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path)
    (results.pictures / "arm1" / "set" / "photo0.png").unlink()
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(results.pictures / "arm1" / "set" / "photo2.png")
    shown = panels(results)
    assert [photo.name for photo in shown.photos] == ["photo1"]
    missing, other = shown.faults
    assert re.search(r"arm1/set/photo0.png cannot be read", missing)
    assert "set/photo2 is not shown: its pictures differ in size" in other
    assert "P+SeD 20x10" in other


def test_arm_without_values_has_none_in_the_numbers_of_a_photo(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path)
    bare = [dataclasses.replace(arm, values={}) for arm in results.arms]
    table = panels(dataclasses.replace(results, arms=bare, differences={})).photos[0].table
    assert [cell.text for cell in table.rows["P"]] == ["none", "none"]

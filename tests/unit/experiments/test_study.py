"""The files of a study: what the page holds and hides, and pictures that cannot be compared."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import photo
from PIL import Image
from studies import write_pictures

from pipeline.experiments.study import StudyOptions, write_study
from pipeline.experiments.study_file import read_study
from shards.errors import ConfigError, InputError

ARMS = ["P+SeD", "<b>plain</b>", "shuffled"]


def data_of(page: Path) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_page_holds_the_windows_of_every_arm_and_the_key_translates_them(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 3)
    page = write_study(tmp_path / "out", arms, originals, options=StudyOptions(side_px=32))
    study, data = read_study(tmp_path / "out" / "study.json"), data_of(page)
    assert sorted(study.arms.values()) == sorted(ARMS)
    assert data["arms"] == list(study.arms)
    assert data["study"] == study.study
    for image, shown in zip(study.images, data["images"], strict=True):
        inside = np.s_[image.top_px : image.top_px + 32, image.left_px : image.left_px + 32]
        for identifier, arm in study.arms.items():
            picture = np.asarray(Image.open(arms[arm][image.name]))[inside]
            assert np.array_equal(pixels_of(shown["results"][identifier]), picture)
        assert np.array_equal(pixels_of(shown["original"]), np.asarray(Image.open(originals[image.name]))[inside])


def test_page_names_no_arm_and_no_image_and_loads_nothing(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ["Alpha-arm", "Beta-arm"], 2)
    text = write_study(tmp_path / "out", arms, originals).read_text()
    assert not any(name in text for name in ("Alpha-arm", "Beta-arm", "photo0", str(tmp_path)))
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "http" not in re.sub(r'http-equiv="Content', "", text)


def test_same_pictures_give_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 3)
    page = write_study(tmp_path / "one", arms, originals)
    other = write_study(tmp_path / "other", dict(reversed(arms.items())), dict(reversed(originals.items())))
    assert page.read_bytes() == other.read_bytes()
    assert page.with_name("study.json").read_bytes() == other.with_name("study.json").read_bytes()


def test_page_of_another_study_is_replaced_only_if_the_user_says_so(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 3)
    page = write_study(tmp_path / "out", arms, originals)
    before = page.read_bytes()
    assert write_study(tmp_path / "out", arms, originals).read_bytes() == before
    fewer = {name: originals[name] for name in ("photo0", "photo1")}
    results = {arm: {name: paths[name] for name in fewer} for arm, paths in arms.items()}
    with pytest.raises(InputError, match=r"study.html exists and is not an output"):
        write_study(tmp_path / "out", results, fewer)
    assert page.read_bytes() == before
    assert write_study(tmp_path / "out", results, fewer, overwrite=True).read_bytes() != before


def test_questions_are_as_many_as_asked_for_or_as_there_are(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 4)
    all_pairs = data_of(write_study(tmp_path / "all", arms, originals))
    assert (all_pairs["num_questions"], all_pairs["num_repeats"]) == (12, 2)
    few = StudyOptions(num_questions=5, repeat_share=0.5)
    some = data_of(write_study(tmp_path / "few", arms, originals, options=few))
    assert (some["num_questions"], some["num_repeats"]) == (5, 2)


def test_images_without_a_difference_are_not_shown(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 3)
    for arm in ARMS:
        arms[arm]["photo1"] = originals["photo1"]
    write_study(tmp_path / "out", arms, originals)
    assert [image.name for image in read_study(tmp_path / "out" / "study.json").images] == ["photo0", "photo2"]
    same = {arm: originals for arm in ARMS}
    with pytest.raises(InputError, match=r"all results of P\+SeD, .* are equal in every pixel"):
        write_study(tmp_path / "none", same, originals)
    assert not (tmp_path / "none").exists()


def test_images_are_limited_to_some_of_all(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 7)
    write_study(tmp_path / "out", arms, originals, options=StudyOptions(max_images=3))
    assert [image.name for image in read_study(tmp_path / "out" / "study.json").images] == [
        "photo0",
        "photo2",
        "photo4",
    ]


def test_window_is_where_all_arms_together_differ_most(tmp_path: Path) -> None:
    base = np.full((60, 90, 3), 100, np.uint8)
    pictures = [base.copy() for _ in range(3)]
    pictures[0][5:15, 5:15] += 30  # the first arm alone, there
    pictures[0][40:50, 70:80] += 25  # two arms, here: the larger difference in all
    pictures[1][40:50, 70:80] -= 25
    paths = {name: tmp_path / f"{name}.png" for name in ("a", "b", "c", "hr")}
    for path, picture in zip(paths.values(), [*pictures, base], strict=True):
        Image.fromarray(picture).save(path)
    arms = {arm: {"one": paths[arm]} for arm in "abc"}
    write_study(tmp_path / "out", arms, {"one": paths["hr"]}, options=StudyOptions(side_px=16))
    (image,) = read_study(tmp_path / "out" / "study.json").images
    assert image.top_px <= 40 <= image.top_px + 16 - 10
    assert image.left_px <= 70 <= image.left_px + 16 - 10


def test_pictures_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    arms, originals = write_pictures(tmp_path / "pictures", ARMS, 2)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="at least two arms; got shuffled"):
        write_study(out, {"shuffled": arms["shuffled"]}, originals)
    with pytest.raises(InputError, match="at least one image; got none"):
        write_study(out, {arm: {} for arm in ARMS}, {})
    with pytest.raises(InputError, match=r"arm 'shuffled' has no result of photo1; every arm shows the same images"):
        write_study(out, {**arms, "shuffled": {"photo0": arms["shuffled"]["photo0"]}}, originals)
    with pytest.raises(InputError, match=r"arm 'P\+SeD' has a result of photo1, of which there is no HR image"):
        write_study(out, arms, {"photo0": originals["photo0"]})
    Image.fromarray(photo(9, 30, 48)).save(arms["shuffled"]["photo0"])
    with pytest.raises(InputError, match=r"arm2-photo0.png and its HR .*different sizes: 48x30 px and 48x40 px"):
        write_study(out, arms, originals)
    arms["shuffled"]["photo0"].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"arm2-photo0.png"):
        write_study(out, arms, originals)
    assert not out.exists()


def test_wrong_options_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"num_questions=0 must be 1 or above; side_px=8 .*; repeat_share=0.7 must"):
        StudyOptions(num_questions=0, side_px=8, repeat_share=0.7)

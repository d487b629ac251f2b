"""Layouts of evaluation sets: which HR goes with which LR, in every layout that is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import photo
from PIL import Image

from pipeline.data.evaluation import check_sets, read_pair, set_files, set_images
from pipeline.data.layouts import LAYOUTS, find_set
from shards.degradation import bicubic
from shards.errors import InputError

HR, OTHER = photo(1, 24, 36), photo(2, 24, 36)
LR = photo(3, 6, 9)
SIDES = {"hr": HR, "lr": LR, "other": OTHER}
# A set's files and what each holds, and which folder is given.
RECOGNISED = {
    "HR alone": ({"set/HR/a.png": "hr"}, "set"),
    "LRx4": ({"set/HR/a.png": "hr", "set/LRx4/a.png": "lr", "set/LRx2/a.png": "other"}, "set"),
    "LRx4, named after the scale": ({"set/HR/a.png": "hr", "set/LRx4/ax4.png": "lr"}, "set"),
    "EDSR's benchmarks": ({"set/HR/a.png": "hr", "set/LR_bicubic/X4/ax4.png": "lr"}, "set"),
    "the HR folder itself": ({"set/HR/a.png": "hr", "set/LRx4/a.png": "lr"}, "set/HR"),
    "images alone": ({"set/a.png": "hr", "set/readme.txt": "text"}, "set"),
    "original": ({"set/original/a.png": "hr"}, "set"),
    "original with LR": ({"set/original/a.png": "hr", "set/LRbicx4/a.png": "lr"}, "set"),
    "GTmod12": ({"set/GTmod12/a.png": "hr", "set/LRbicx4/a.png": "lr", "set/original/a.png": "other"}, "set"),
    "GTmod4": ({"set/GTmod4/a.png": "hr", "set/LRbicx4/a.png": "lr"}, "set"),
    "SelfExSR": (
        {
            "set/image_SRF_2/a_SRF_2_HR.png": "other",
            "set/image_SRF_4/a_SRF_4_HR.png": "hr",
            "set/image_SRF_4/a_SRF_4_LR.png": "lr",
            "set/image_SRF_4/a_SRF_4_bicubic.png": "other",
        },
        "set",
    ),
    "SelfExSR, one scale": ({"set/a_SRF_4_HR.png": "hr", "set/a_SRF_4_LR.png": "lr"}, "set"),
    "SelfExSR without this scale": ({"set/image_SRF_2/a_SRF_2_HR.png": "hr"}, "set"),
    "SelfExSR, one other scale": ({"set/a_SRF_2_HR.png": "hr", "set/a_SRF_2_LR.png": "other"}, "set"),
    "DIV2K": ({"set/DIV2K_valid_HR/a.png": "hr", "set/DIV2K_valid_LR_bicubic/X4/ax4.png": "lr"}, "set"),
    "DIV2K's HR folder": (
        {"set/DIV2K_valid_HR/a.png": "hr", "set/DIV2K_valid_LR_bicubic/X4/ax4.png": "lr"},
        "set/DIV2K_valid_HR",
    ),
}


def lay_out(folder: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if content in SIDES:
            Image.fromarray(SIDES[content]).save(folder / path)
        else:
            (folder / path).write_text(content)


@pytest.mark.parametrize("case", RECOGNISED)
def test_layout_when_recognised_pairs_hr_with_its_lr_or_makes_that(tmp_path: Path, case: str) -> None:
    files, given = RECOGNISED[case]
    lay_out(tmp_path, files)
    check_sets([tmp_path / given])
    (image,) = set_images(tmp_path / given, 4)
    pair = read_pair(image, 4)
    assert pair.name == "a"
    assert np.array_equal(pair.gt, HR)
    assert np.array_equal(pair.lq, LR if "lr" in files.values() else bicubic.downscale(HR, 4))
    read = {tmp_path / path for path, content in files.items() if content in ("hr", "lr")}
    assert read <= set(set_files([tmp_path / given]))


def test_every_layout_is_among_these(tmp_path: Path) -> None:
    found = set()
    for case, (files, given) in RECOGNISED.items():
        lay_out(tmp_path / case, files)
        found.add(find_set(tmp_path / case / given, 4).layout.shown)
    assert found == {layout.shown for layout in LAYOUTS}


def test_images_of_one_name_are_refused_because_results_could_show_one(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.jpg and a\.png differ in their ending alone; rename one"):
        check_sets([tmp_path])


def test_folder_when_in_no_layout_is_refused_with_those_that_are_recognised(tmp_path: Path) -> None:
    lay_out(tmp_path, {"set/photos/a.png": "hr", "set/notes.txt": "text"})
    with pytest.raises(InputError) as refused:
        check_sets([tmp_path / "set"])
    text = str(refused.value)
    assert f"no evaluation set in {tmp_path / 'set'}; got notes.txt, photos; " in text
    for layout in LAYOUTS:
        assert layout.shown in text
    assert len(text.splitlines()) < 10
    with pytest.raises(InputError, match="no such folder: none; an evaluation set is a folder with\n  HR/ with LRx4/"):
        check_sets([Path("none")])


def test_image_when_its_lr_is_missing_or_of_another_size_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"set/a_SRF_4_HR.png": "hr", "set/b_SRF_4_HR.png": "hr", "set/b_SRF_4_LR.png": "other"})
    missing, other = set_images(tmp_path / "set", 4)
    with pytest.raises(InputError, match=r"set has no a_SRF_4_LR\.png; add it"):
        read_pair(missing, 4)
    with pytest.raises(InputError, match=r"b_SRF_4_LR\.png has 36x24 px, but .*HR\.png has 36x24; expected 9x6"):
        read_pair(other, 4)

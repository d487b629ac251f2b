"""Evaluation sets: what pairs with what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import photo
from PIL import Image

from pipeline.data.evaluation import EvaluationPair, check_sets, read_image, read_pair, set_images
from shards.degradation import bicubic
from shards.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "HR").mkdir()
    (tmp_path / "LRx4").mkdir()
    for name in ("b.png", "a.png"):
        Image.fromarray(photo(ord(name[0]), 43, 50)).save(tmp_path / "HR" / name)
    (tmp_path / "HR" / "notes.txt").write_text("no image")
    return tmp_path


def read_a(folder: Path, scale: int) -> EvaluationPair:
    return read_pair(set_images(folder, scale)[0], scale)


def test_files_when_listed_are_the_images_by_name(folder: Path) -> None:
    assert [image.hr.name for image in set_images(folder, 4)] == ["a.png", "b.png"]


def test_pair_when_no_lr_is_given_is_bicubic_of_the_cut_truth(folder: Path) -> None:
    (folder / "LRx4").rmdir()
    pair = read_a(folder, 4)
    assert pair.name == "a"
    assert np.array_equal(pair.gt, photo(ord("a"), 43, 50)[:40, :48])
    assert np.array_equal(pair.lq, bicubic.downscale(pair.gt, 4))


def test_pair_when_the_lr_folder_lacks_it_is_refused_not_made_up(folder: Path) -> None:
    with pytest.raises(InputError, match=r"LRx4 has neither a\.png nor ax4\.png"):
        read_a(folder, 4)


def test_pair_when_an_lr_is_given_takes_it_at_its_own_scale_only(folder: Path) -> None:
    given = photo(9, 10, 12)
    Image.fromarray(given).save(folder / "LRx4" / "a.png")
    assert np.array_equal(read_a(folder, 4).lq, given)
    assert read_a(folder, 2).lq.shape == (21, 25, 3)


def test_pair_when_the_lr_has_another_size_is_refused_with_all_three_sizes(folder: Path) -> None:
    Image.fromarray(photo(9, 11, 12)).save(folder / "LRx4" / "a.png")
    with pytest.raises(InputError, match=r"LRx4/a\.png has 12x11 px, but .*HR/a\.png has 48x40; expected 12x10"):
        read_a(folder, 4)


def test_set_when_hr_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no evaluation set in .*; got an empty folder"):
        check_sets([tmp_path])
    (tmp_path / "HR").mkdir()
    (tmp_path / "HR" / "readme.md").touch()
    with pytest.raises(InputError, match=r"no images in .*HR; expected .*\.png"):
        check_sets([tmp_path])


def test_image_when_it_is_none_is_refused_by_name(folder: Path) -> None:
    fake = folder / "HR" / "fake.png"
    fake.write_bytes(b"GIF? no.")
    with pytest.raises(InputError, match=r"fake\.png cannot be used as an image"):
        read_image(fake)
    with pytest.raises(InputError, match=r"gone\.png cannot be read: No such file"):
        read_image(folder / "HR" / "gone.png")

"""The demo's photos appear where a job is about to read them, whole, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

import jobs.sample_photos
from jobs.sample_photos import TRAIN, VALIDATION, prepare_training_photos, prepare_validation_photos
from pipeline.data.evaluation import read_image, set_images
from shards.errors import InputError
from shards.write.sources import discover

HELD_OUT = ["brick.png", "chelsea.png", "china.jpg", "coffee.png", "grace_hopper.jpg"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_photos_when_another_folder_is_read_are_not_copied(here: Path) -> None:
    prepare_training_photos([Path("my/photos"), VALIDATION])
    prepare_validation_photos([Path("my/set"), TRAIN])
    assert list(here.iterdir()) == []


def test_validation_photos_when_asked_for_are_an_evaluation_set() -> None:
    prepare_validation_photos([VALIDATION])
    assert [image.hr.name for image in set_images(VALIDATION, 4)] == HELD_OUT
    assert min(min(read_image(image.hr).pixels.shape[:2]) for image in set_images(VALIDATION, 4)) >= 300
    prepare_validation_photos([VALIDATION / "HR"])


def test_training_photos_when_asked_for_are_a_source_without_the_held_out_ones() -> None:
    prepare_training_photos([TRAIN])
    names = {file.path.name for file in discover([TRAIN])}
    assert len(names) == 11
    assert read_image(TRAIN / "nemo.png").pixels.shape == (728, 1296, 3)
    assert not names & set(HELD_OUT)
    assert not VALIDATION.exists()


def test_photos_when_there_are_kept_and_missing_ones_restored() -> None:
    prepare_validation_photos([VALIDATION])
    ours, other = VALIDATION / "HR" / "chelsea.png", VALIDATION / "HR" / "china.jpg"
    ours.write_bytes(b"changed by the user")
    content = other.read_bytes()
    other.unlink()
    prepare_validation_photos([VALIDATION])
    assert ours.read_bytes() == b"changed by the user"
    assert other.read_bytes() == content
    assert len(list(ours.parent.iterdir())) == len(HELD_OUT)


def test_photos_when_the_folder_cannot_be_made_say_so(here: Path) -> None:
    (here / "demo").write_text("a file is in the way")
    with pytest.raises(
        InputError, match=r"sample photos cannot be written to demo/photos/validation/HR: .*run the demo"
    ):
        prepare_validation_photos([VALIDATION])


def test_photo_when_its_package_lacks_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.sample_photos, "_VALIDATION_PHOTOS", {"unicorn.png": ("skimage", "data")})
    with pytest.raises(InputError, match=r"skimage ships no unicorn\.png at .*make setup"):
        prepare_validation_photos([VALIDATION])
    monkeypatch.setattr(jobs.sample_photos, "_VALIDATION_PHOTOS", {"a.png": ("no_such_package_here", "data")})
    with pytest.raises(InputError, match="part of no_such_package_here, which is not installed: pip install -e"):
        prepare_validation_photos([VALIDATION])

"""The picture of what rules of curation removed: which panels it has, in which order, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from curated_photos import write_spoiled_photos
from harness import exit_code_of, small_shard_config, write_shards
from PIL import Image

from jobs import preview
from jobs.terminal import EXIT_BAD_INPUT
from shards.format.curation import CurationRules, ScoreRules

SUB_IMAGE_RULES = CurationRules(sub_image=ScoreRules(max_flat_share=0.4))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spoiled_photos(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture(scope="module")
def shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shards"
    write_shards(small_shard_config(source, folder, curation=SUB_IMAGE_RULES))
    return folder


def draw(*arguments: object) -> int:
    return exit_code_of(preview.main, *arguments)


def test_sub_images_are_drawn_from_the_nearest_to_the_bound_to_the_furthest(
    source: Path, shards: Path, tmp_path: Path
) -> None:
    assert draw(shards, "--rejected", "--source", source, "--samples", 3, "--output", tmp_path / "a.png") == 0
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    # The first row is the photo without sub-images; the second has three sub-images of 64 px, enlarged to 256.
    row = picture[picture.shape[0] - 256 - 15 * 3 - 4 :][:256]
    half = np.asarray(Image.open(source / "half.png"))
    panels = [row[::4, start : start + 256 : 4] for start in (0, 264, 528)]
    flat_columns = [int((panel == 77).all(axis=(0, 2)).sum()) for panel in panels]
    assert flat_columns == sorted(flat_columns)
    assert flat_columns[0] < flat_columns[-1] == 64
    assert any((panels[0] == half[top : top + 64, 64:128]).all() for top in range(0, 97, 32))


def test_nothing_removed_draws_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = CurationRules(photo=ScoreRules(min_sharpness=0.0))
    write_shards(small_shard_config(source, tmp_path / "shards", curation=rules))
    assert draw(tmp_path / "shards", "--rejected", "--source", source, "--output", tmp_path / "a.png") == 0
    assert "removed nothing" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def remove_photo(folder: Path) -> None:
    (folder / "photos" / "half.png").unlink()


def change_photo(folder: Path) -> None:
    shutil.copy(folder / "photos" / "good0.png", folder / "photos" / "half.png")


def spoil_photo(folder: Path) -> None:
    (folder / "photos" / "half.png").write_bytes(b"none")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove_photo, "--source lacks photos/half.png"),
        (change_photo, "half.png has changed since the shards were planned"),
        (spoil_photo, "half.png cannot be decoded any more"),
    ],
)
def test_photos_other_than_those_of_the_shards_are_refused(
    source: Path,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    words: str,
) -> None:
    shutil.copytree(source, tmp_path / "photos")
    spoil(tmp_path)
    found = draw(shards, "--rejected", "--source", tmp_path / "photos", "--output", tmp_path / "a.png")
    assert (found, words in capsys.readouterr().err) == (EXIT_BAD_INPUT, True)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rejected"], "--rejected and --source belong together"),
        (["--source", "photos"], "--rejected and --source belong together"),
        (["--rejected", "--source", "photos"], "written without rules of curation"),
    ],
)
def test_flags_and_shards_without_rules_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    write_shards(small_shard_config(source, tmp_path / "shards"))
    assert draw(tmp_path / "shards", *flags, "--output", tmp_path / "a.png") == EXIT_BAD_INPUT
    assert words in " ".join(capsys.readouterr().err.split())


def test_folder_without_a_plan_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert draw(tmp_path / "empty", "--rejected", "--source", source) == EXIT_BAD_INPUT
    assert "holds no plan.json" in capsys.readouterr().err

"""What waits for a tracker waits in order, within a limit, and wherever the run folder goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import photo
from PIL import Image

from pipeline.tracking.outbox import Outbox


def write(path: Path, seed: int) -> np.ndarray:
    image = photo(seed, 16, 24)
    partial = path.with_suffix(".new.png")
    Image.fromarray(image).save(partial)
    partial.replace(path)
    return image


def test_pictures_wait_by_position_as_they_were_and_files_after_them(tmp_path: Path) -> None:
    outbox, picture = Outbox(tmp_path / "outbox", tmp_path), tmp_path / "now.png"
    later = write(picture, 1)
    outbox.add_picture("Set5/baby", picture, 20)
    earlier = write(picture, 2)
    outbox.add_picture("Set5/baby", picture, 9)
    write(picture, 3)
    (tmp_path / "config.json").write_text("{}")
    outbox.add_file(tmp_path / "config.json")
    outbox.add_file(tmp_path / "config.json")
    waiting = list(Outbox(tmp_path / "outbox", tmp_path))
    assert [(one.name, one.images_seen) for one in waiting] == [
        ("Set5/baby", 9),
        ("Set5/baby", 20),
        ("config.json", None),
    ]
    assert np.array_equal(np.asarray(Image.open(waiting[0].path)), earlier)
    assert np.array_equal(np.asarray(Image.open(waiting[1].path)), later)
    for one in waiting:
        outbox.remove(one)
    assert list(outbox) == []
    assert picture.is_file()
    assert (tmp_path / "config.json").is_file()


def test_names_that_are_no_text_wait_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    picture = folder / os.fsdecode(b"\xff%.png")
    write(picture, 1)
    outbox = Outbox(tmp_path / "outbox", tmp_path)
    outbox.add_picture(os.fsdecode(b"s\xe9t/\xff 100%/\xc3\xa9"), picture, 4)
    outbox.add_file(picture)
    shown, file = outbox
    assert shown.name == os.fsdecode(b"s\xe9t/\xff 100%/\xc3\xa9")
    assert file.name == picture.name
    assert file.path.read_bytes() == picture.read_bytes()


def test_files_are_found_where_the_run_folder_is_now(tmp_path: Path) -> None:
    (tmp_path / "run" / "export").mkdir(parents=True)
    (tmp_path / "run" / "export" / "generator.safetensors").write_bytes(b"weights")
    run = tmp_path / "run"
    Outbox(run / "tracking" / "outbox", run).add_file(run / "export" / "generator.safetensors")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    (waiting,) = Outbox(tmp_path / "moved" / "tracking" / "outbox", tmp_path / "moved")
    assert waiting.path.read_bytes() == b"weights"


def test_oldest_pictures_are_dropped_beyond_the_limit_with_a_warning(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    picture = tmp_path / "now.png"
    write(picture, 1)
    outbox = Outbox(tmp_path / "outbox", tmp_path, limit_bytes=5 * picture.stat().st_size // 2)
    for images_seen in (10, 20, 30, 40):
        outbox.add_picture("Set5/baby", picture, images_seen)
    assert [one.images_seen for one in outbox] == [30, 40]
    assert len(warnings()) == 2

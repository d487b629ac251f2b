"""Folders as people have them: links, hidden files, files of other systems, and files that cannot be read."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, gradient
from PIL import Image, features

import shards.format.photos.files
from pipeline.data.evaluation import image_files, passed_over
from shards.errors import InputError
from shards.format.photos import DecodeError, describe_passed_over, list_photos, photo_suffixes, read_file
from shards.format.rejects import Reject
from shards.write.sources import discover
from shards.write.survey import Photo, SurveyTask, survey

PNG = encode(Image.fromarray(gradient()))
LIMIT = 10_000


def fill(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.fromarray(gradient() + np.uint8(number))))


def names(*folders: Path) -> list[str]:
    return [file.name for file in discover(folders)]


def survey_folder(folder: Path) -> dict[str, Photo | Reject]:
    results = survey(SurveyTask(discover([folder]), 8, LIMIT, {}))
    return {result.path if isinstance(result, Reject) else result.name: result for result in results}


def test_linked_folders_are_followed_each_real_folder_once(tmp_path: Path) -> None:
    fill(tmp_path / "store", "div2k/a.png", "flickr/sub/b.png")
    fill(tmp_path / "HR", "c.png", "real/d.png")
    for link, target in {
        "DIV2K": "../store/div2k",
        "Flickr2K": "../store/flickr",
        "again": "../store/flickr/sub",
        "a-link-before-real": "real",
        "loop": ".",
        "real/up": "..",
    }.items():
        (tmp_path / "HR" / link).symlink_to(target)
    # A real folder keeps its own name, whatever links to it: names of older datasets stay.
    assert names(tmp_path / "HR") == ["HR/DIV2K/a.png", "HR/Flickr2K/sub/b.png", "HR/c.png", "HR/real/d.png"]


def test_a_folder_of_links_alone_is_not_empty(tmp_path: Path) -> None:
    fill(tmp_path / "store", "a.png")
    (tmp_path / "HR").mkdir()
    (tmp_path / "HR" / "all").symlink_to(tmp_path / "store")
    (tmp_path / "linked").symlink_to(tmp_path / "HR")
    assert names(tmp_path / "HR") == ["HR/all/a.png"]
    assert names(tmp_path / "linked") == ["HR/all/a.png"]


def test_hidden_files_and_those_of_other_systems_are_passed_over_everywhere(tmp_path: Path) -> None:
    fill(
        tmp_path / "in",
        *(
            "a.png",
            "._a.png",
            ".hidden/b.png",
            "__MACOSX/a.png",
            "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
            "#recycle/c.png",
        ),
        *("$RECYCLE.BIN/d.png", "System Volume Information/e.png", "lost+found/f.png", ".Trash-1000/files/g.png"),
        *("Thumbs.db", "desktop.ini", ".DS_Store", "sub/.nomedia"),
    )
    assert names(tmp_path / "in") == ["in/a.png"]
    assert [path.name for path in image_files(tmp_path / "in")] == ["a.png"]
    assert list_photos(tmp_path / "in").passed_over == {}
    assert passed_over([tmp_path / "in"]) == "ignored: 1 folder(s) inside (sub)"


def test_endings_that_hold_photos_are_read_and_the_others_counted(tmp_path: Path) -> None:
    image, folder = Image.fromarray(gradient()), tmp_path / "in"
    folder.mkdir()
    kinds = {"a.png": "PNG", "b.jfif": "JPEG", "c.JPE": "JPEG", "d.avif": "AVIF", "e.jp2": "JPEG2000"}
    for name, kind in kinds.items():
        image.save(folder / name, kind)
    (folder / "sub").mkdir()
    for name in ("f.heic", "notes.txt", "notes.TXT", "README", "sub/g.txt"):
        (folder / name).write_bytes(b"x")
    assert features.check("avif")
    assert features.check("jpg_2000")
    assert ".heic" not in photo_suffixes()  # its decoder is no dependency
    assert names(folder) == [f"in/{name}" for name in kinds]
    assert all(isinstance(result, Photo) for result in survey_folder(folder).values())
    counted = "ignored: 5 file(s) of other kinds (no ending 1, .heic 1, .txt 3)"
    assert describe_passed_over([list_photos(folder)]) == counted
    flat = "ignored: 8 file(s) of other kinds (no ending 2, .heic 2, .txt 4) and 2 folder(s) inside (sub, sub)"
    assert passed_over([folder, folder]) == flat


def test_folders_that_are_not_searched_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos" / "inside").mkdir(parents=True)
    (tmp_path / "photos" / ".hidden").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path)
    (tmp_path / "photos" / "a.png").touch()
    listing = list_photos(tmp_path / "photos", recursive=False)
    assert [path.name for path in listing.photos] == ["a.png"]
    assert passed_over([tmp_path / "photos"]) == "ignored: 2 folder(s) inside (inside, linked)"
    (tmp_path / "photos" / "a.txt").touch()
    (tmp_path / "photos" / "a.png").unlink()
    with pytest.raises(InputError, match=r"no images in .*; ignored: 1 file\(s\) .*txt 1\) and 2 folder\(s\) inside"):
        image_files(tmp_path / "photos")


def test_files_that_cannot_be_read_are_rejects(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fill(folder, "good.png", "gone.png", "nested/inner.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "Flickr2K").symlink_to("/nowhere/flickr")
    (folder / "circle.png").symlink_to("circle.png")
    os.mkfifo(folder / "fifo.png")
    files = discover([folder])
    (folder / "gone.png").unlink()
    results = survey(SurveyTask(files, 8, LIMIT, {}))
    rejects = {result.path: (result.reason, result.detail) for result in results if isinstance(result, Reject)}
    assert rejects == {
        "in/Flickr2K": ("unreadable", "it is a link to nothing"),
        "in/circle.png": ("unreadable", "it is a link to nothing"),
        "in/dangling.png": ("unreadable", "it is a link to nothing"),
        "in/fifo.png": ("unreadable", "it is not a regular file"),
        "in/gone.png": ("unreadable", "no such file or directory"),
    }
    assert len(results) == 7


def refuse(path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the operating system refuse one file or folder; root may read everything, and no disk fails on demand."""
    real_open, real_scan = Path.read_bytes, os.scandir

    def read_bytes(self: Path) -> bytes:
        if self == path:
            raise OSError(code, os.strerror(code), str(path))
        return real_open(self)

    def scandir(folder: Path) -> object:
        if folder == path:
            raise OSError(code, os.strerror(code), str(path))
        return real_scan(folder)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(shards.format.photos.files.os, "scandir", scandir)


def test_folder_without_permission_is_a_reject_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", "a.png", "secret/b.png")
    refuse(tmp_path / "in" / "secret", errno.EACCES, monkeypatch)
    found = survey_folder(tmp_path / "in")
    assert found["in/secret"] == Reject("in/secret", "unreadable", "permission denied")
    assert isinstance(found["in/a.png"], Photo)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_disk_that_fails_stops_the_job(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", "a.png", "sub/b.png")
    with monkeypatch.context() as patch:
        refuse(tmp_path / "in" / "a.png", code, patch)
        with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
            survey_folder(tmp_path / "in")
        assert caught.value.errno == code
    refuse(tmp_path / "in" / "sub", code, monkeypatch)
    with pytest.raises(InputError, match=r"cannot list .*/sub: "):
        discover([tmp_path / "in"])


def test_file_longer_than_any_photo_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DecodeError, match=r"1099511627776 bytes for at most 10000 pixels"):
        read_file(path, max_pixels=LIMIT)


def test_names_of_255_bytes_and_of_any_bytes_are_photos(tmp_path: Path) -> None:
    long = "ü" * 125 + "x.png"
    assert len(os.fsencode(long)) == 255
    raw = os.fsdecode(b"latin-\xe9.png")
    fill(tmp_path / "in", long, raw)
    found = survey_folder(tmp_path / "in")
    assert sorted(found) == sorted([f"in/{long}", f"in/{raw}"])
    assert all(isinstance(result, Photo) for result in found.values())

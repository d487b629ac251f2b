from pathlib import Path

import numpy as np
import pytest
from photo_files import encode
from PIL import Image

from shards.errors import InputError
from shards.format.manifest import Reject
from shards.write.sources import SourceFile, discover
from shards.write.survey import (
    Photo,
    SurveyTask,
    check_rejects,
    count_reasons,
    excluded_pixels,
    reject_duplicates,
    survey,
)

LIMIT = 10_000


def colours() -> Image.Image:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :3], image[:, 3:] = (200, 30, 60), (10, 220, 90)
    return Image.fromarray(image)


def survey_files(folder: Path, min_side_px: int = 8, known: dict[str, Photo] | None = None) -> dict:
    results = survey(SurveyTask(discover([folder]), min_side_px, LIMIT, known or {}))
    return {result.path if isinstance(result, Reject) else result.name: result for result in results}


def test_survey_when_files_are_bad_rejects_each_by_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    good = encode(noise)
    contents = {
        "good.png": good,
        "copy.png": encode(noise, compress_level=0),
        "cut.png": good[: len(good) // 2],
        "empty.png": b"",
        "text.jpg": b"this is a letter, not a picture",
        "tiny.png": encode(colours()),
        "bomb.png": encode(Image.new("RGB", (200, 200))),
        "flipped.png": good[:200] + bytes([good[200] ^ 0xFF]) + good[201:],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    photos, rejects = reject_duplicates(survey_files(folder).values(), {})
    assert [photo.name for photo in photos] == ["in/copy.png"]
    assert {reject.path.removeprefix("in/"): reject.reason for reject in rejects} == {
        "good.png": "duplicate",
        "cut.png": "truncated",
        "empty.png": "truncated",
        "text.jpg": "not-an-image",
        "tiny.png": "too-small",
        "bomb.png": "too-large",
        "flipped.png": "unreadable",
    }
    assert all(" at 0x" not in reject.detail and str(tmp_path) not in reject.detail for reject in rejects)
    assert count_reasons(rejects)["truncated"] == 2
    with pytest.raises(InputError, match="7 of 8 photos are rejected"):
        check_rejects(photos, rejects, 0.5)
    check_rejects(photos, rejects, 0.9)
    # A photo equal to an evaluation image goes too, and then nothing is left at all.
    evaluation = excluded_pixels([survey_files(folder)["in/good.png"]])
    photos, rejects = reject_duplicates(survey_files(folder).values(), evaluation)
    assert not photos
    with pytest.raises(InputError, match="8 of 8"):
        check_rejects(photos, rejects, 1.0)


def test_survey_when_the_file_is_known_does_not_decode_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(colours()))
    seen = survey_files(tmp_path, min_side_px=1)
    name = f"{tmp_path.name}/a.png"
    marked = Photo(**{**vars(seen[name]), "pixels_sha256": "from before"})
    assert survey_files(tmp_path, 1, {name: marked})[name] == marked
    (tmp_path / "a.png").write_bytes(encode(colours().rotate(180)))
    assert survey_files(tmp_path, 1, {name: marked})[name].pixels_sha256 != "from before"


def test_excluded_when_undecodable_is_refused() -> None:
    with pytest.raises(InputError, match=r"--exclude image a/b\.png"):
        excluded_pixels([Reject("a/b.png", "truncated", "the file is empty")])


def test_discover_when_nested_sorts_and_passes_over_the_rest(tmp_path: Path) -> None:
    for name in ("x/b.PNG", "x/sub/a.jpeg", "x/.hidden.png", "x/notes.txt", "y/x/a.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = discover([tmp_path / "x", tmp_path / "y" / "x"])
    assert [file.name for file in found] == ["x/b.PNG", "x/sub/a.jpeg", "x~2/a.webp"]
    assert found[1] == SourceFile("x/sub/a.jpeg", tmp_path.resolve() / "x/sub/a.jpeg")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "an empty folder"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), r"1 other file\(s\), such as a.txt"),
    ],
)
def test_discover_when_there_is_no_photo_says_what_to_do(make, text: str, tmp_path: Path) -> None:
    make(tmp_path / "in")
    with pytest.raises(InputError, match=text) as caught:
        discover([tmp_path / "in"])
    assert "--source" in str(caught.value)
    assert "give a folder" in str(caught.value)

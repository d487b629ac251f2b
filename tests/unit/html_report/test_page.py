"""The page: pictures as they are, nothing from outside, names as text, and a mark by which it is recognised."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from harness import ROOT, model_file, photo, write_photos
from PIL import Image

from pipeline.inference.html_report.embedding import is_lossless, photo_uri
from pipeline.inference.html_report.output import check_report_file, is_report
from pipeline.inference.html_report.report import ReportRequest, write_report
from pipeline.inference.model_names import label_models
from shards.errors import InputError


def decoded(uri: str) -> tuple[str, np.ndarray]:
    kind, _, data = uri.removeprefix("data:image/").partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_photo_is_embedded_as_it_is_and_a_large_one_nearly() -> None:
    small, large = photo(0, 60, 80), np.tile(photo(1, 100, 101), (10, 10, 1))
    assert is_lossless(small)
    assert not is_lossless(large)
    kind, pixels = decoded(photo_uri(small))
    assert kind == "png"
    assert np.array_equal(pixels, small)
    kind, pixels = decoded(photo_uri(large))
    assert kind == "jpeg"
    assert np.abs(pixels.astype(int) - large).mean() < 4


def request(models: list[str], folder: Path, **changes: object) -> ReportRequest:
    settings = {
        "models": label_models(models),
        "sets": (folder / "set",),
        "metrics": ("gmsd",),
        "output": folder / "report.html",
        "max_photos": 2,
        "command": "python jobs/report.py <b>&amp;",
    }
    return ReportRequest(**(settings | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "set" / "HR", [(48, 64), (64, 48), (60, 60), (52, 64)])
    (tmp_path / "set" / "HR" / "photo1.png").rename(tmp_path / "set" / "HR" / "<i>photo.png")
    return tmp_path


def test_page_holds_all_it_needs_and_names_as_text(folder: Path) -> None:
    model = model_file(folder / "a<b.safetensors")
    written = write_report(request([model], folder))
    assert written.faults == []
    assert written.num_photos == 4
    page = (folder / "report.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^#"][^"]{,4})', page)) == {"data:"}
    assert "http" not in re.sub(r'"data:[^"]*"', "", page).replace("http-equiv", "")
    assert "a&lt;b" in page
    assert "&lt;i&gt;photo" in page
    assert "<i>photo" not in page
    assert "jobs/report.py &lt;b&gt;&amp;amp;" in page
    assert page.count("data-compare") == 2 + 1  # the two photos, and the script
    assert "2 of 4 photos are shown" in page
    assert is_report(folder / "report.html")


def test_weights_alone_have_no_curves_and_no_attention_and_the_page_says_so(folder: Path) -> None:
    write_photos(folder / "single" / "HR", [(20, 24)])
    write_report(request([model_file(folder / "m.safetensors")], folder, sets=(folder / "single",)))
    page = " ".join((folder / "report.html").read_text().split())
    assert "Neither curves nor attention of m: given as weights alone." in page
    assert "1 photo of single" in page
    assert "<svg" not in page
    assert 'id="attention"' not in page


def test_several_processes_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start the job without a launcher"):
        check_report_file(folder / "report.html", [], [folder / "set"], overwrite=False)


def test_photo_that_cannot_be_used_is_said_and_all_being_so_is_refused(folder: Path) -> None:
    model = model_file(folder / "m.safetensors")
    (folder / "set" / "HR" / "photo0.png").write_bytes(b"no picture")
    written = write_report(request([model], folder))
    assert len(written.faults) == 1
    assert "photo0.png cannot be used as an image" in (folder / "report.html").read_text()
    for path in (folder / "set" / "HR").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no photo of the sets can be used; no report was written"):
        write_report(request([model], folder, output=folder / "other.html"))
    assert not (folder / "other.html").exists()


def test_report_is_known_by_its_head(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<!doctype html><title>report</title>")
    assert not is_report(tmp_path / "other.html")
    assert not is_report(tmp_path / "none.html")


def test_templates_are_part_of_the_package() -> None:
    packaged = re.search(
        r'^"pipeline.inference.html_report" = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M
    )
    assert packaged
    room = ROOT / "pipeline" / "inference" / "html_report"
    others = {path for path in room.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert others == set(room.glob(packaged[1]))

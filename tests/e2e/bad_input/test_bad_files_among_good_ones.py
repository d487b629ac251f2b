"""A bad file costs itself: the others are done, and it is named last, with exit code 1."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness import model_file, photo, write_photos
from PIL import Image

import jobs.evaluate
import jobs.report
import jobs.upscale
from jobs.terminal import run_job


def folder_with_faults(folder: Path) -> None:
    """Two images, and between them by name one that ends too early and one that is none."""
    write_photos(folder, [(24, 32), (16, 20), (28, 24)])
    (folder / "photo1.png").write_bytes((folder / "photo1.png").read_bytes()[:200])
    (folder / "photo1b.png").write_text("<html>")


def test_upscale_when_files_are_damaged_does_the_others_and_names_them_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with_faults(here / "photos")
    assert run_job(jobs.upscale.main, [model_file(here / "m.safetensors"), "photos", "out"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(path.name for path in (here / "out").iterdir()) == ["photo0.png", "photo2.png"]
    assert "2 of 4 images could not be used" in lines[-3]
    assert "photos/photo1.png" in lines[-2]
    assert "photos/photo1b.png" in lines[-1]


def test_evaluate_when_files_are_damaged_measures_the_others_and_names_them_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with_faults(here / "set" / "HR")
    arguments = [model_file(here / "m.safetensors"), "--sets", "set", "--output", "n.json", "--picture", "n.png"]
    assert run_job(jobs.evaluate.main, arguments) == 1
    document = json.loads((here / "n.json").read_text())
    assert list(document["sets"]["set"]["images"]) == ["photo0", "photo2"]
    assert len(document["faults"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "2 of 4 images could not be used" in lines[-3]
    assert "photo1b.png" in lines[-1]


def test_evaluate_when_an_image_is_too_small_for_a_metric_measures_the_others_and_names_it_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(here / "set" / "HR", [(24, 32), (40, 16), (7, 40), (28, 24)])
    arguments = [model_file(here / "m.safetensors"), "--sets", "set", "--output", "n.json"]
    assert run_job(jobs.evaluate.main, arguments) == 1
    assert list(json.loads((here / "n.json").read_text())["sets"]["set"]["images"]) == ["photo0", "photo3"]
    lines = capsys.readouterr().err.splitlines()
    assert "2 of 4 images could not be used" in lines[-3]
    assert "photo1.png: ssim_y needs 11 px per side without the border of 4 px; got 32x8 px" in lines[-2]
    assert "photo2.png: psnr_y needs 1 px per side without the border of 4 px; got 0x32 px" in lines[-1]


def test_evaluate_when_names_are_no_text_writes_and_prints_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_photos(here / os.fsdecode(b"s\xe9t") / "HR", [(24, 32), (28, 24)])
    (folder / "photo0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))  # as archives of other systems unpack them
    arguments = [model_file(here / "m.safetensors"), "--sets", str(folder.parent), "--output", "n.json"]
    assert run_job(jobs.evaluate.main, [*arguments, "--table", "n.csv", "--picture", "n.png"]) == 0
    assert r"s\udce9t (2 images)  PSNR-Y" in capsys.readouterr().out
    images = json.loads((here / "n.json").read_text())["sets"]["s\udce9t"]["images"]
    assert list(images) == ["caf\udce9", "photo1"]
    assert [line.split(",")[:2] for line in (here / "n.csv").read_text().splitlines()[1:]] == [
        [r"s\udce9t", r"caf\udce9"],
        [r"s\udce9t", "photo1"],
    ]


def test_figure_and_report_when_names_are_no_text_show_them_escaped(here: Path) -> None:
    folder = write_photos(here / os.fsdecode(b"s\xe9t") / "HR", [(24, 32), (28, 24)])
    (folder / "photo0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    model = model_file(here / os.fsdecode(b"m\xe9.safetensors"))
    arguments = [model, "--sets", str(folder.parent), "--metrics", "psnr_y", "spectrum"]
    assert run_job(jobs.evaluate.main, [*arguments, "--output", "n.json", "--figure", "n.svg"]) == 0
    assert r">m\udce9<" in (here / "n.svg").read_text(encoding="utf-8")
    assert run_job(jobs.report.main, [*arguments, "--output", "n.html"]) == 0
    page = (here / "n.html").read_text(encoding="utf-8")
    assert r"caf\udce9" in page
    assert r"s\udce9t" in page


def test_evaluate_says_what_the_measured_pixels_do_not_show_of_the_files(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_photos(here / "set" / "HR", [(24, 32), (20, 24), (28, 24)])
    (here / "set" / "LRx4").mkdir()
    for number, (height, width) in enumerate([(6, 8), (5, 6), (7, 6)]):
        lq = Image.fromarray(photo(number, height, width))
        lq.putalpha(128 if number == 0 else 255)  # an opaque alpha channel holds nothing that is lost
        lq.save(here / "set" / "LRx4" / f"photo{number}.png")
    holed = Image.open(folder / "photo1.png").convert("RGBA")
    holed.putpixel((3, 3), (9, 9, 9, 0))
    holed.save(folder / "photo1.png")
    Image.fromarray(photo(2, 28, 24)[..., 0].astype(np.uint16) * 257).save(folder / "photo2.png")
    arguments = [model_file(here / "m.safetensors"), "--sets", "set", "--output", "n.json"]
    assert run_job(jobs.evaluate.main, arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["1 image(s): reduced to 8 bits", "2 image(s): transparency composited on white"]
    assert json.loads((here / "n.json").read_text())["photo_notes"] == {"depth": 1, "transparency": 2}


def test_evaluate_when_files_are_damaged_writes_what_the_others_alone_give(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with_faults(here / "faulty" / "HR")
    shutil.copytree(here / "faulty", here / "sound")
    for name in ("photo1.png", "photo1b.png"):
        (here / "sound" / "HR" / name).unlink()
    arguments = [model_file(here / "m.safetensors"), "--sets", "faulty", "sound", "--output", "n.json"]
    assert run_job(jobs.evaluate.main, [*arguments, "--table", "n.csv", "--picture", "n.png"]) == 1
    document = json.loads((here / "n.json").read_text())
    faulty, sound = document["sets"]["faulty"], document["sets"]["sound"]
    assert faulty == sound
    for metric, mean in faulty["mean"].items():
        assert mean == pytest.approx(sum(image[metric] for image in faulty["images"].values()) / 2, rel=1e-12)
    faulty_table, sound_table, _ = capsys.readouterr().out.split("\n\n")
    assert faulty_table.removeprefix("faulty").split() == sound_table.removeprefix("sound").split()
    assert f"{faulty['mean']['psnr_y']:.2f}" in faulty_table
    rows = [line.split(",") for line in (here / "n.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:3]] == [["faulty", "photo0"], ["faulty", "photo2"]]
    assert [row[2:] for row in rows[1:3]] == [row[2:] for row in rows[3:]]
    assert Image.open(here / "n.png").size[1] > 2 * (24 + 28)

"""Several models in one evaluation: the numbers of each by itself, side by side, and how they differ."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import write_photos
from PIL import Image

import jobs.evaluate
from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS, run_job
from pipeline.errors import CheckpointError
from pipeline.inference.model_names import label_models
from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import paired_interval
from pipeline.metrics.comparison import expanded_confidence
from pipeline.models.generators import SRVGGNetCompact, save_generator
from shards.errors import InputError

METRIC_NAMES = ("psnr_y", "gmsd")


def save_model(path: Path, seed: int, strength: float = 1.0, scale: int = 4) -> str:
    torch.manual_seed(seed)
    generator = SRVGGNetCompact(4, 1, scale).eval()
    with torch.no_grad():
        for parameter in list(generator.parameters())[-2:]:
            parameter.mul_(strength)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_generator(path, generator)
    return str(path)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """One that repeats pixels, and one that adds noise to that."""
    return [save_model(tmp_path / "plain.safetensors", 0, 0.0), save_model(tmp_path / "noisy.safetensors", 1)]


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    write_photos(tmp_path / "six" / "HR", [(48, 56), (44, 44), (60, 48), (52, 48), (48, 64), (56, 44)])
    write_photos(tmp_path / "one" / "HR", [(48, 48)])
    return ["--sets", str(tmp_path / "six"), str(tmp_path / "one")]


def evaluate(folder: Path, *arguments: str) -> dict:
    output = folder / "numbers.json"
    command = [*arguments, "--output", str(output), "--metrics", *METRIC_NAMES]
    assert run_job(jobs.evaluate.main, command) == 0
    return json.loads(output.read_text(encoding="utf-8"))


def test_models_side_by_side_have_the_documents_that_each_has_by_itself(
    models: list[str], sets: list[str], tmp_path: Path
) -> None:
    alone = [evaluate(tmp_path, model, *sets) for model in models]
    together = evaluate(tmp_path, *models, *sets)
    assert together["models"] == alone
    assert alone[0]["sets"]["six"]["mean"]["psnr_y"] != alone[1]["sets"]["six"]["mean"]["psnr_y"]


def test_difference_to_the_first_is_that_of_the_pairs(models: list[str], sets: list[str], tmp_path: Path) -> None:
    document = evaluate(tmp_path, *models, *sets)
    (difference,) = document["differences"]
    assert (difference["model"], difference["minus"]) == (models[1], models[0])
    for metric in METRIC_NAMES:
        first, second = (
            [image[metric] for image in one["sets"]["six"]["images"].values()] for one in document["models"]
        )
        found = difference["sets"]["six"][metric]
        expected = paired_interval(second, first, confidence=expanded_confidence(6))
        assert expected is not None
        assert found["mean"] == pytest.approx(np.mean(second) - np.mean(first))
        assert found["interval"] == [expected.low, expected.high]
        assert (found["num_images"], found["num_lost"]) == (6, 0)
        is_better = (found["mean"] > 0) == METRICS[metric].is_higher_better
        assert found["verdict"] == ("better" if is_better else "worse")
        assert difference["sets"]["one"][metric]["verdict"] == "not proven"


def test_table_at_the_terminal_is_aligned_and_marks_the_best_of_each_column(
    models: list[str], sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = evaluate(tmp_path, *models, *sets)
    lines = capsys.readouterr().out.splitlines()
    header, *rows = lines[:5]
    assert header.split() == ["six", "(6", "images)", "PSNR-Y,", "dB", "↑", "GMSD", "↓"]
    assert [row.split()[0] for row in rows] == ["bicubic", "plain", "noisy", "noisy"]
    assert rows[3].startswith("noisy - plain")
    assert len({row.index("±") for row in rows[:3]}) == 1
    means = [one["sets"]["six"]["mean"] for one in document["models"]]
    psnr = [means[0]["bicubic_psnr_y"], *(mean["psnr_y"] for mean in means)]
    gmsd = [means[0]["bicubic_gmsd"], *(mean["gmsd"] for mean in means)]
    for row, psnr_of_row, gmsd_of_row in zip(rows[:3], psnr, gmsd, strict=True):
        numbers = row.split()[1:]
        stars = [at for at, word in enumerate(numbers) if word == "*"]
        expected = [2] * (psnr_of_row == max(psnr)) + [len(numbers) - 1] * (gmsd_of_row == min(gmsd))
        assert stars == expected, row
    assert rows[3].split()[-1] in ("better", "worse")


def test_csv_of_several_models_names_the_model_of_each_line(models: list[str], sets: list[str], tmp_path: Path) -> None:
    table = tmp_path / "new" / "images.csv"
    for _ in range(2):  # its own table may be replaced
        document = evaluate(tmp_path, *models, *sets, "--table", str(table))
    with table.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["model"] for row in rows] == ["plain"] * 7 + ["noisy"] * 7
    assert [row["set"] for row in rows] == (["six"] * 6 + ["one"]) * 2
    noisy = document["models"][1]["sets"]["six"]["images"]
    assert {row["image"]: float(row["gmsd"]) for row in rows[7:13]} == {
        name: row["gmsd"] for name, row in noisy.items()
    }


def test_picture_shows_every_model(models: list[str], sets: list[str], tmp_path: Path) -> None:
    sizes = []
    for number in (1, 2):
        evaluate(tmp_path, *models[:number], *sets, "--picture", str(tmp_path / "picture.png"))
        sizes.append(Image.open(tmp_path / "picture.png").size)
    assert sizes[1][0] - sizes[0][0] == 64 + 6  # the widest image, and a gap


def test_image_that_cannot_be_used_is_left_out_of_all_models_and_named(
    models: list[str], sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "six" / "HR" / "photo2.png").write_bytes(b"no image")
    output = tmp_path / "numbers.json"
    assert run_job(jobs.evaluate.main, [*models, *sets, "--output", str(output)]) == EXIT_FAULTS
    assert "1 of 7 images could not be used" in capsys.readouterr().err
    for document in json.loads(output.read_text())["models"]:
        assert list(document["sets"]["six"]["images"]) == [f"photo{number}" for number in (0, 1, 3, 4, 5)]
        assert "photo2.png cannot be used as an image" in document["faults"][0]


def test_models_of_different_scales_are_refused_with_each_scale(
    models: list[str], sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = save_model(tmp_path / "twice.safetensors", 0, scale=2)
    output = tmp_path / "numbers.json"
    assert run_job(jobs.evaluate.main, [models[0], twice, *sets, "--output", str(output)]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert "plain.safetensors: x4" in error
    assert "twice.safetensors: x2" in error
    assert not output.exists()


def test_labels_are_short_and_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("runs/mine/export/generator.pth", "runs/other/export/generator.pth", "models/x.pth", "bicubic.pth"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    registered = "models:/sed-x4@champion"
    assert label_models(["runs/mine", "models/x.pth", registered]) == {
        "mine": "runs/mine",
        "x": "models/x.pth",
        "sed-x4@champion": registered,
    }
    exports = ["runs/mine/export/generator.pth", "runs/other/export/generator.pth"]
    assert list(label_models(exports)) == ["mine/export/generator", "other/export/generator"]
    assert list(label_models(["bicubic.pth"])) == [f"{tmp_path.name}/bicubic"]  # the table has a row of that name
    (tmp_path / "HR").mkdir()
    assert list(label_models(["HR"])) == [f"{tmp_path.name}/HR"]  # the report has a picture of that name
    with pytest.raises(InputError, match="runs/mine is given twice"):
        label_models(["runs/mine", "models/x.pth", "runs/mine"])
    with pytest.raises(CheckpointError, match="no such model: gone"):
        label_models(["gone"])


def test_set_without_a_usable_image_has_no_means_and_the_others_have(
    models: list[str], sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one" / "HR" / "photo0.png").write_bytes(b"no image")
    output, table = tmp_path / "numbers.json", tmp_path / "images.csv"
    files = ["--output", str(output), "--table", str(table), "--figure", str(tmp_path / "plane.png")]
    command = [*models, *sets, "--metrics", *METRIC_NAMES, *files]
    assert run_job(jobs.evaluate.main, command) == EXIT_FAULTS
    assert "one (0 images)" in capsys.readouterr().out
    document = json.loads(output.read_text())
    results = document["models"][0]["sets"]["one"]
    assert (results["mean"]["psnr_y"], results["interval"]["psnr_y"], results["images"]) == (None, None, {})
    assert document["differences"][0]["sets"]["one"]["psnr_y"]["mean"] is None
    assert len(table.read_text().splitlines()) == 1 + 2 * 6

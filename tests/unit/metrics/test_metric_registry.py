"""Metrics by name, from the registry to the job's JSON; and one that is added from outside."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import write_photos

import jobs.evaluate
from jobs.terminal import EXIT_BAD_INPUT, run_job
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, Metric
from pipeline.models.generators import SRVGGNetCompact, save_generator


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test register metrics, and forgets them after it."""
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """A generator and a set of two photos, as arguments of the job."""
    torch.manual_seed(3)
    save_generator(tmp_path / "generator.safetensors", SRVGGNetCompact(4, 1, 4).eval())
    write_photos(tmp_path / "tiny" / "HR", [(40, 44), (48, 48)])
    return [str(tmp_path / "generator.safetensors"), "--sets", str(tmp_path / "tiny")]


def _mean_error(sr: np.ndarray, gt: np.ndarray, border_px: int) -> float:
    return float(np.abs(sr.astype(int) - gt).mean()) + 0 * border_px


def evaluate(inputs: list[str], output: Path, *metrics: str) -> dict:
    assert run_job(jobs.evaluate.main, [*inputs, "--output", str(output), "--metrics", *metrics]) == 0
    return json.loads(output.read_text(encoding="utf-8"))


def test_evaluate_by_default_writes_psnr_and_ssim_on_luma(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "numbers.json"
    assert run_job(jobs.evaluate.main, [*inputs, "--output", str(output)]) == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    assert list(document) == ["model", "weights_sha256", "scale", "protocol", "sets"]
    assert document["protocol"] == "BT.601 Y of the rounded 8-bit image, border = scale"
    assert list(document["sets"]["tiny"]["mean"]) == ["psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y"]
    mean = document["sets"]["tiny"]["mean"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["tiny", "(2", "images)", "PSNR-Y,", "dB", "↑", "SSIM-Y", "↑"]
    for row, label, prefix in ((rows[1], "bicubic", "bicubic_"), (rows[2], "generator", "")):
        assert row[0] == label
        assert {f"{mean[f'{prefix}psnr_y']:.2f}", f"{mean[f'{prefix}ssim_y']:.4f}"} < set(row)


def test_evaluate_by_name_writes_those_metrics_alone(inputs: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"  # its captions have a PSNR only where there is one
    document = evaluate([*inputs, "--picture", str(picture)], tmp_path / "numbers.json", "psnr_rgb", "ssim_y")
    assert picture.is_file()
    assert list(document["sets"]["tiny"]["mean"]) == ["psnr_rgb", "ssim_y", "bicubic_psnr_rgb", "bicubic_ssim_y"]
    assert document["protocol"].startswith("RGB of the rounded 8-bit image")
    assert 0 < document["sets"]["tiny"]["images"]["photo0"]["psnr_rgb"] < 60


@pytest.mark.usefixtures("lent")
def test_metric_added_from_outside_is_evaluated_and_listed(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    METRICS.add(Metric("mean_error", "error", _mean_error, "RGB, all pixels", is_higher_better=False, unit="levels"))
    document = evaluate(inputs, tmp_path / "numbers.json", "mean_error")
    assert document["sets"]["tiny"]["mean"]["mean_error"] > 0
    assert run_job(jobs.evaluate.main, ["--metrics", "help"]) == 0
    listed = capsys.readouterr().out
    assert "mean_error: distortion, full-reference, lower is better; RGB, all pixels\n" in listed
    assert "psnr_y: distortion, full-reference, higher is better; BT.601 Y" in listed


@pytest.mark.usefixtures("lent")
def test_metric_without_its_weights_is_reported_as_not_computed(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    METRICS.add(
        Metric("deep", "deep", _mean_error, "RGB", False, missing=lambda: "deep.pth from https://example.org/deep.pth")
    )
    document = evaluate(inputs, tmp_path / "numbers.json", "psnr_y", "deep")
    assert document["not_computed"] == {"deep": "deep.pth from https://example.org/deep.pth"}
    assert list(document["sets"]["tiny"]["mean"]) == ["psnr_y", "bicubic_psnr_y"]
    assert "deep: not computed: needs deep.pth from https://example.org" in capsys.readouterr().out
    assert run_job(jobs.evaluate.main, [*inputs, "--metrics", "deep"]) == EXIT_BAD_INPUT
    assert "leaves nothing to compute" in capsys.readouterr().err


def test_evaluation_has_an_interval_around_each_mean_and_a_table_of_images(inputs: list[str], tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    for _ in range(2):  # its own table may be replaced
        assert run_job(jobs.evaluate.main, [*inputs, "--output", str(tmp_path / "a.json"), "--table", str(table)]) == 0
    results = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["sets"]["tiny"]
    low, high = results["interval"]["psnr_y"]
    values = [image["psnr_y"] for image in results["images"].values()]
    assert (low, high) == pytest.approx(
        (min(values), max(values))
    )  # of two images, a quarter of resamples is one twice
    assert low < results["mean"]["psnr_y"] < high
    with table.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["set"], row["image"]) for row in rows] == [("tiny", "photo0"), ("tiny", "photo1")]
    assert [float(row["psnr_y"]) for row in rows] == values
    table.write_text("mine\n")
    arguments = [*inputs, "--output", str(tmp_path / "a.json"), "--table", str(table)]
    assert run_job(jobs.evaluate.main, arguments) == EXIT_BAD_INPUT
    assert table.read_text() == "mine\n"


def test_unknown_metric_is_refused_with_the_nearest_names(
    inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"no metric is named 'psnr-y'; did you mean psnr_y"):
        METRICS["psnr-y"]
    assert run_job(jobs.evaluate.main, [*inputs, "--metrics", "psnr"]) == EXIT_BAD_INPUT
    assert "no metric is named 'psnr'" in capsys.readouterr().err

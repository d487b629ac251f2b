"""The figure of perception against distortion: what is drawn where, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from harness import model_file, write_photos
from PIL import Image

import jobs.evaluate
from jobs.terminal import EXIT_BAD_INPUT, run_job
from pipeline.inference.evaluate import SetResults, result_names
from pipeline.inference.evaluation_report import EvaluatedModel, EvaluationReport
from pipeline.inference.figure import axes_of, is_figure, write_figure
from pipeline.metrics import METRICS
from shards.errors import InputError


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    write_photos(tmp_path / "tiny" / "HR", [(48, 44), (44, 48)])
    model = model_file(tmp_path / "model.safetensors")
    return [model, "--sets", str(tmp_path / "tiny"), "--output", str(tmp_path / "numbers.json")]


def report_of(values: dict[str, tuple[float, float]], labels: tuple[str, ...] = ("model",)) -> EvaluationReport:
    """A set of two equal images for each name, with a model's PSNR and GMSD; bicubic has 20 dB and 0.2."""
    metrics = [METRICS["psnr_y"], METRICS["gmsd"]]
    report = EvaluationReport([EvaluatedModel(label, label, "") for label in labels], 4, metrics, {})
    for name, (psnr_y, gmsd) in values.items():
        table = np.broadcast_to([psnr_y, gmsd, 20.0, 0.2], (len(labels), 2, 4)).copy()
        report.sets[name] = SetResults(["a", "b"], [], {}, table, result_names(metrics))
    return report


def points(svg: str) -> list[tuple[float, float]]:
    """Where the markers of the axes are, in points from the upper left; those of the legend come after them."""
    plotted = svg.partition('id="legend_1"')[0]
    uses = re.findall(
        r'<g id="line2d_\d+">\s*<defs>.*?</defs>\s*<g clip-path[^>]*>\s*<use [^>]*x="([\d.]+)" y="([\d.]+)"',
        plotted,
        re.S,
    )
    return [(float(x), float(y)) for x, y in uses]


def test_each_model_and_set_is_a_point_in_its_place(tmp_path: Path) -> None:
    write_figure(tmp_path / "plane.svg", report_of({"near": (30.0, 0.1), "far": (25.0, 0.15)}))
    (base, near, again, far) = points((tmp_path / "plane.svg").read_text())
    assert base == again  # bicubic, on both sets alike
    assert base[0] < far[0] < near[0]  # dB grow to the right
    assert base[1] < far[1] < near[1]  # GMSD falls downwards
    assert far[0] == pytest.approx((base[0] + near[0]) / 2)


def test_labels_name_direction_models_and_sets_letter_by_letter(tmp_path: Path) -> None:
    labels = ("model", "_hidden", "a$x$b")
    write_figure(tmp_path / "plane.svg", report_of({"Set5": (30.0, 0.1)}, labels))
    texts = [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "plane.svg").read_text())]
    assert {"bicubic", *labels, "Set5", "PSNR-Y, dB   (better →)", "GMSD   (← better)"} <= set(texts)


def test_mean_that_does_not_exist_has_no_point(tmp_path: Path) -> None:
    write_figure(tmp_path / "plane.svg", report_of({"perfect": (np.inf, 0.0)}))
    assert len(points((tmp_path / "plane.svg").read_text())) == 1


def test_axes_are_the_first_metric_of_each_kind() -> None:
    chosen = [METRICS[name] for name in ("spectrum", "ssim_y", "psnr_y", "gmsd")]
    assert [metric.name for metric in axes_of(chosen)] == ["ssim_y", "spectrum"]
    with pytest.raises(InputError, match=r"has no perceptual metric .*; got psnr_y, ssim_y; add one, such as gmsd"):
        axes_of([METRICS["psnr_y"], METRICS["ssim_y"]])
    with pytest.raises(InputError, match=r"has no distortion metric .*; add one, such as psnr_y"):
        axes_of([METRICS["gmsd"]])


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_job_draws_it_replaces_its_own_and_nobody_else_s(
    arguments: list[str], tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "figures" / f"plane.{ending}"
    command = [*arguments, "--metrics", "psnr_y", "gmsd", "--figure", str(figure)]
    assert run_job(jobs.evaluate.main, command) == 0
    first = figure.read_bytes()
    assert run_job(jobs.evaluate.main, command) == 0
    assert figure.read_bytes() == first
    assert is_figure(figure)
    if ending == "png":
        assert Image.open(figure).size == (1200, 800)
    figure.write_bytes(b"mine")
    (tmp_path / "numbers.json").write_text("{}")
    assert run_job(jobs.evaluate.main, command) == EXIT_BAD_INPUT
    assert f"{figure} exists and is not an output of this job" in capsys.readouterr().err
    assert figure.read_bytes() == b"mine"
    assert run_job(jobs.evaluate.main, [*command, "--overwrite"]) == 0
    assert figure.read_bytes() == first


def test_figure_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for metrics, name, words in (
        (["psnr_y", "gmsd"], "plane.jpg", "plane.jpg does not end in .png or .svg"),
        (["psnr_y", "ssim_y"], "plane.png", "has no perceptual metric"),
    ):
        command = [*arguments, "--metrics", *metrics, "--figure", str(tmp_path / name)]
        assert run_job(jobs.evaluate.main, command) == EXIT_BAD_INPUT
        error = capsys.readouterr().err
        assert words in error
        assert "evaluating" not in error
    assert not (tmp_path / "numbers.json").exists()

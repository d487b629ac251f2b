"""Curves of a run: which charts its metrics file gives, and what their lines are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.inference.html_report.charts import Chart
from pipeline.inference.html_report.curves import curves_of
from pipeline.train.report import MetricsFile

LOSSES = {"generator/pixel": 0.04, "generator/skipped_updates": 0.0, "learning_rate": 1e-4, "gradient_share/pixel": 1.0}
GAN = {
    "generator/adversarial": 0.7,
    "discriminator/real": 0.6,
    "discriminator/fake": 0.7,
    "discriminator/real_logit": 0.1,
    "discriminator/accuracy_real": 0.8,
    "discriminator/accuracy_fake": 0.6,
    "gradient_share/pixel": 0.75,
    "gradient_share/adversarial": 0.25,
}
VALIDATION = {
    "Set5/psnr_y": 28.0,
    "Set5/bicubic_psnr_y": 27.0,
    "Set14/psnr_y": 26.0,
    "Set14/bicubic_psnr_y": 25.0,
    "Set5/niqe-1a2b": 5.0,
    "Set5/bicubic_niqe-1a2b": 6.0,
}


@pytest.fixture
def file(tmp_path: Path) -> MetricsFile:
    return MetricsFile(tmp_path / "metrics.jsonl")


def charts_of(file: MetricsFile) -> dict[str, Chart]:
    return {drawing.chart.title: drawing.chart for drawing in curves_of(file).drawings}


def points(chart: Chart) -> dict[str, list[tuple[float, float]]]:
    return {series.label: list(series.points) for series in chart.series}


def test_run_without_reports_has_no_curves(file: MetricsFile) -> None:
    curves = curves_of(file)
    assert curves.drawings == []
    assert curves.notes == ["No curves: the run has no reports yet."]


def test_pixel_stage_has_no_chart_of_the_discriminator_nor_of_the_only_terms_share(file: MetricsFile) -> None:
    file.write(4, LOSSES)
    assert list(charts_of(file)) == ["Generator's losses"]
    assert curves_of(file).notes == ["No curves of a discriminator: none was trained so far."]


def test_discriminator_has_curves_before_the_generator_trains(file: MetricsFile) -> None:
    file.write(4, {"discriminator/real": 0.7, "discriminator/fake": 0.6, "discriminator/r1": 0.01})
    file.write(8, {"discriminator/real": 0.6, "discriminator/fake": 0.5, "discriminator/r1": 0.02} | LOSSES)
    charts = charts_of(file)
    assert points(charts["Generator's losses"]) == {"pixel": [(8, 0.04)]}
    assert points(charts["Discriminator's losses"]) == {
        "real": [(4, 0.7), (8, 0.6)],
        "fake": [(4, 0.6), (8, 0.5)],
        "R1 penalty": [(4, 0.01), (8, 0.02)],
    }


def test_charts_have_the_values_of_the_reports(file: MetricsFile) -> None:
    file.write(4, LOSSES)
    file.write(8, LOSSES | GAN)
    file.write(8, VALIDATION)
    charts = charts_of(file)
    assert points(charts["Generator's losses"]) == {"pixel": [(4, 0.04), (8, 0.04)], "adversarial": [(8, 0.7)]}
    assert points(charts["Discriminator's losses"]) == {"real": [(8, 0.6)], "fake": [(8, 0.7)]}
    accuracy = charts["Discriminator's accuracy"]
    assert points(accuracy) == {"real": [(8, 0.8)], "fake": [(8, 0.6)]}
    assert list(accuracy.levels) == [("chance", 0.5)]
    shares = charts["Generator's gradient by loss term"]
    assert points(shares) == {"pixel": [(4, 100), (8, 75)], "adversarial": [(8, 25)]}


def test_validations_have_a_line_per_set_and_bicubic_dashed_in_its_colour(file: MetricsFile) -> None:
    file.write(8, VALIDATION)
    file.write(16, VALIDATION | {"Set5/psnr_y": 29.0})
    charts = charts_of(file)
    assert list(charts) == ["Validation: PSNR-Y, higher is better", "Validation: niqe-1a2b"]
    psnr = charts["Validation: PSNR-Y, higher is better"]
    assert psnr.unit == "dB"
    assert points(psnr)["Set5"] == [(8, 28), (16, 29)]
    assert points(psnr)["Set14, bicubic"] == [(8, 25), (16, 25)]
    looks = {series.label: (series.colour, series.is_reference) for series in psnr.series}
    assert looks == {
        "Set5": (0, False),
        "Set5, bicubic": (0, True),
        "Set14": (1, False),
        "Set14, bicubic": (1, True),
    }


def test_long_run_is_thinned_to_means_of_its_reports(file: MetricsFile) -> None:
    for number in range(1, 401):
        file.write(100 * number, {"generator/pixel": float(number)})
    curves = curves_of(file)
    assert curves.notes[0] == "Each point of a training curve is the mean of 3 reports."
    (line,) = curves.drawings[0].chart.series
    assert len(line.points) == 134
    assert line.points[0] == (300, 2.0)
    assert line.points[-1] == (40_000, 400.0)

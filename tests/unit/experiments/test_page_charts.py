"""Charts of a comparison: differences, curves over seeds, and the plane, where their values say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_comparison import MARGIN, synthetic_comparison

from pipeline.experiments.page import plane
from pipeline.experiments.page.curves import curves_of_arms
from pipeline.experiments.page.forest import Forest, forest_of
from pipeline.experiments.page.looks import looks_of
from pipeline.experiments.page.plane import Planes, planes_of
from pipeline.experiments.results import ComparisonResults, Verdict
from pipeline.inference.html_report.charts import Chart
from pipeline.inference.html_report.curves import Curves
from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import Interval
from pipeline.train.report import MetricsFile

GMSD, PSNR = METRICS["gmsd"], METRICS["psnr_y"]


@pytest.fixture
def results(tmp_path: Path) -> ComparisonResults:
    return synthetic_comparison(tmp_path)


def with_differences(results: ComparisonResults, *ends: tuple[float, float, float]) -> ComparisonResults:
    """The results with given intervals of the arms' primary differences: low, mean, high."""
    intervals = [Interval(mean, low, high, 3) for low, mean, high in ends]
    found = {f"arm{at}": {"gmsd": Verdict(interval, "text")} for at, interval in enumerate(intervals, 1)}
    arms = [dataclasses.replace(results.arms[1], name=name) for name in found]
    return dataclasses.replace(results, arms=[results.arms[0], *arms], differences=found)


def forest(results: ComparisonResults) -> Forest:
    drawn = forest_of(results, looks_of(results), results.primary)
    assert drawn is not None
    return drawn


def test_forest_has_differences_and_margin_where_the_axis_says(results: ComparisonResults) -> None:
    drawn = forest(with_differences(results, (-0.010, -0.006, -0.002), (-0.001, 0.001, 0.003)))
    ticks = {float(label): at for at, label in drawn.ticks}
    assert ticks[-0.01] == 0
    unit = (ticks[0.0] - ticks[-0.01]) / 0.01
    assert drawn.zero == ticks[0.0]
    assert drawn.margin == pytest.approx((drawn.zero - unit * MARGIN, drawn.zero + unit * MARGIN), abs=0.02)
    whisker = drawn.rows[0].whisker
    assert whisker is not None
    expected = [drawn.zero + unit * value for value in (-0.010, -0.006, -0.002)]
    assert [whisker.low, whisker.mean, whisker.high] == pytest.approx(expected, abs=0.02)
    assert drawn.ends == ("better", "worse")
    assert not drawn.is_cut


def test_forest_cuts_an_arm_far_from_the_others_off(results: ComparisonResults) -> None:
    near, far = (-0.002, 0.001, 0.003), (0.2, 0.3, 0.4)
    drawn = forest(with_differences(results, near, near, far))
    whiskers = [row.whisker for row in drawn.rows]
    assert all(whiskers)
    assert [whisker.is_cut_high for whisker in whiskers if whisker] == [False, False, True]
    assert whiskers[2] is not None
    assert (whiskers[2].low, whiskers[2].mean, whiskers[2].high) == (100, None, 100)
    assert drawn.is_cut


def test_forest_of_another_metric_has_no_margin_and_of_none_is_none(results: ComparisonResults) -> None:
    looks = looks_of(results)
    other = forest_of(results, looks, PSNR)
    assert other is not None
    assert other.margin is None
    assert other.ends == ("worse", "better")
    assert forest_of(dataclasses.replace(results, differences={}), looks, GMSD) is None


def test_arm_without_a_difference_has_a_row_without_a_whisker(results: ComparisonResults) -> None:
    lost = results.differences | {"arm2": {"gmsd": Verdict(None, "not measured")}}
    rows = forest(dataclasses.replace(results, differences=lost)).rows
    assert [row.whisker is None for row in rows] == [False, True]
    assert rows[1].verdict == "not measured"


def curves(results: ComparisonResults) -> Curves:
    return curves_of_arms(results, looks_of(results))


def charts(results: ComparisonResults) -> dict[str, Chart]:
    return {drawing.chart.title: drawing.chart for drawing in curves(results).drawings}


def test_curve_is_the_mean_of_the_seeds_and_its_area_their_range(results: ComparisonResults) -> None:
    found = charts(results)
    assert list(found) == [
        "Validation: GMSD, lower is better",
        "Validation: PSNR-Y, higher is better",
        "Discriminator's accuracy, mean of real and fake",
        "Adversarial share of the generator's gradient",
    ]
    validation = found["Validation: GMSD, lower is better"]
    assert [series.label for series in validation.series] == ["P", "P+SeD", "P, shuffled semantics"]
    files = [MetricsFile(run / "metrics.jsonl").validations("gmsd") for run in results.arms[0].runs.values()]
    line = validation.series[0]
    for (images, value), ends in zip(line.points, line.spread, strict=True):
        seeds = [file[int(images)] for file in files]
        assert value == pytest.approx(np.mean(seeds))
        assert ends == (min(seeds), max(seeds))


def test_arm_without_an_adversary_has_no_line_of_it(results: ComparisonResults) -> None:
    found = charts(results)
    for title in ("Discriminator's accuracy, mean of real and fake", "Adversarial share of the generator's gradient"):
        assert [series.label for series in found[title].series] == ["P", "P+SeD"]


def test_several_discriminators_have_charts_of_their_own_and_one_share(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, num_seeds=1)
    accuracies = {f"discriminator{which}/accuracy_{side}": 0.6 for which in ("", "_2") for side in ("real", "fake")}
    shares = {"gradient_share/adversarial": 0.1, "gradient_share/adversarial_2": 0.2, "gradient_share/pixel": 0.7}
    MetricsFile(results.arms[1].runs[0] / "metrics.jsonl").write(5000, accuracies | shares)
    found = charts(results)
    assert [line.label for line in found["Discriminator 2's accuracy, mean of real and fake"].series] == ["P+SeD"]
    share = found["Adversarial share of the generator's gradient"].series[1]
    assert share.points[-1] == (5000, pytest.approx(30))
    assert share.spread == ()  # of one seed there is no range


def test_runs_without_reports_have_no_curves_and_the_page_says_so(results: ComparisonResults) -> None:
    for run in results.arms[2].runs.values():
        (run / "metrics.jsonl").unlink()
    assert curves(results).notes == ["No curves of P, shuffled semantics: its runs have no reports."]
    for arm in results.arms[:2]:
        for run in arm.runs.values():
            (run / "metrics.jsonl").write_text("")
    assert curves(results).drawings == []


def test_long_runs_are_thinned_alike(results: ComparisonResults) -> None:
    file = MetricsFile(results.arms[0].runs[1] / "metrics.jsonl")
    for number in range(300):
        file.write(5000 + number, {"discriminator/accuracy_real": 0.5, "discriminator/accuracy_fake": 0.7})
    (note,) = curves(results).notes
    assert note == "Each point of a training curve is the mean of 3 reports."
    accuracy = charts(results)["Discriminator's accuracy, mean of real and fake"]
    assert max(len(line.points) for line in accuracy.series) <= 150


def test_lines_around_the_baseline_are_enlarged_where_another_is_far_away(tmp_path: Path) -> None:
    near = [f"arm {number}" for number in range(6)]
    found = charts(synthetic_comparison(tmp_path / "far", [*near, "far"], 3))
    whole = found["Validation: PSNR-Y, higher is better"]
    enlarged = found["Validation: PSNR-Y, higher is better; enlarged: around arm 0"]
    assert list(enlarged.series) == list(whole.series)[:6]
    assert not any("enlarged" in title for title in charts(synthetic_comparison(tmp_path / "near", near)))


def planes(results: ComparisonResults) -> Planes:
    drawn = planes_of(results, looks_of(results))
    assert isinstance(drawn, Planes)
    return drawn


def test_plane_has_a_point_per_seed_and_arm_where_their_means_are(results: ComparisonResults) -> None:
    drawn = planes(results).whole
    assert (drawn.x_label, drawn.y_label) == ("PSNR-Y, dB: better →", "GMSD: better ↓")
    x = value_at([(at, float(label)) for at, label in drawn.x_ticks])
    y = value_at([(at, float(label)) for at, label in drawn.y_ticks])
    for arm, shown in zip(results.arms, drawn.arms, strict=True):
        assert len(shown.seeds) == 2
        for seed, dot in enumerate(shown.seeds):
            assert x(dot.x) == pytest.approx(arm.values["psnr_y"][seed].mean(), abs=0.01)
            assert y(dot.y) == pytest.approx(arm.values["gmsd"][seed].mean(), abs=0.001)
        assert x(shown.mean.x) == pytest.approx(arm.values["psnr_y"].mean(), abs=0.01)
        assert len(shown.stops) == 5
        assert (shown.stops[-1].x, shown.stops[-1].y) == (shown.seeds[0].x, shown.seeds[0].y)
    assert planes(results).has_routes


def value_at(ticks):
    """A function from coordinates to values, from the ends of an axis."""
    (first, low), (last, high) = ticks[0], ticks[-1]
    return lambda at: low + (high - low) * (at - first) / (last - first)


def test_bars_are_the_intervals_of_the_differences_around_the_mean(results: ComparisonResults) -> None:
    drawn = planes(results).whole
    assert drawn.arms[0].bars == ""
    shown = drawn.arms[1]
    left, _, right, _, low, high = map(float, re.findall(r"[\d.]+", shown.bars))
    x = value_at([(at, float(label)) for at, label in drawn.x_ticks])
    interval = results.differences["arm1"]["psnr_y"].interval
    assert interval is not None
    assert x(right) - x(left) == pytest.approx(interval.high - interval.low, abs=0.02)
    assert left <= shown.mean.x <= right
    assert high <= shown.mean.y <= low


def test_bicubic_is_shown_where_it_is_near_and_named_where_it_is_far(results: ComparisonResults) -> None:
    near = {"psnr_y": results.arms[0].values["psnr_y"][0], "gmsd": results.arms[0].values["gmsd"][0]}
    dot = planes(dataclasses.replace(results, bicubic=near)).whole.bicubic
    assert dot is not None
    assert plane.LEFT <= dot.x <= plane.WIDTH - plane.RIGHT
    far = planes(dataclasses.replace(results, bicubic=near | {"psnr_y": np.array([10.0])}))
    assert far.whole.bicubic is None
    assert far.notes == [f"Bicubic upscaling is beyond the axes, at PSNR-Y 10.00 and GMSD {near['gmsd'].mean():.4f}."]


def test_plane_without_a_kind_of_metric_or_without_values_says_why(results: ComparisonResults) -> None:
    only = dataclasses.replace(results, metrics=[GMSD])
    assert planes_of(only, looks_of(only)) == "the experiment has no distortion metric"
    nothing = dataclasses.replace(results, intervals={})
    assert planes_of(nothing, looks_of(nothing)) == "no arm has both PSNR-Y and GMSD"
    missing = dataclasses.replace(results, intervals=results.intervals | {"arm2": {}})
    drawn = planes(missing)
    assert [arm.look.label for arm in drawn.whole.arms] == ["P", "P+SeD"]
    assert "Without P, shuffled semantics, which lacks a value." in drawn.notes


def test_arms_around_the_baseline_are_enlarged_where_another_is_far_away(tmp_path: Path) -> None:
    near = [f"arm {number}" for number in range(6)]
    drawn = planes(synthetic_comparison(tmp_path / "far", [*near, "far"], 3)).near
    assert drawn is not None
    assert [arm.look.label for arm in drawn.arms] == near
    assert drawn.title == "Enlarged: around arm 0"
    for arm in drawn.arms:
        assert arm.mean.is_inside
        assert all(seed.is_inside for seed in arm.seeds)
    assert planes(synthetic_comparison(tmp_path / "near", near[:3], 3)).near is None

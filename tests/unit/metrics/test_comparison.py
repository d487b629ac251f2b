"""Comparisons of two models: coverage of their intervals on data whose truth is known, and non-finite values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import CONFIDENCE, paired_interval
from pipeline.metrics.comparison import MIN_IMAGES, compare, expanded_confidence

INF, NAN = math.inf, math.nan
PSNR, GMSD = METRICS["psnr_y"], METRICS["gmsd"]
TRIALS = 400


@pytest.mark.parametrize(("num_images", "student"), [(5, 2.7764), (10, 2.2622), (100, 1.9842)])
def test_expanded_confidence_has_the_tails_of_student(num_images: int, student: float) -> None:
    wanted = math.erf(student * math.sqrt(num_images / (num_images - 1)) / math.sqrt(2))
    assert expanded_confidence(num_images) == pytest.approx(wanted, abs=2e-4)
    assert expanded_confidence(1) == CONFIDENCE


def paired(
    random: np.random.Generator, num_images: int, truth: float, *, skewed: bool
) -> tuple[list[float], list[float]]:
    """PSNRs of two models whose mean difference over all images of the kind is `truth`; images differ far more."""
    theirs = random.normal(28.0, 4.0, num_images)
    noise = random.exponential(0.3, num_images) - 0.3 if skewed else random.normal(0.0, 0.3, num_images)
    return list(theirs + truth + noise), list(theirs)


@pytest.mark.parametrize(
    ("num_images", "skewed", "least"), [(5, False, 0.92), (14, False, 0.92), (100, True, 0.92), (14, True, 0.87)]
)
def test_interval_covers_the_truth_as_often_as_it_says(num_images: int, skewed: bool, least: float) -> None:
    random, covered = np.random.default_rng(1), 0
    for _ in range(TRIALS):
        ours, theirs = paired(random, num_images, 0.1, skewed=skewed)
        confidence = expanded_confidence(num_images)
        interval = paired_interval(ours, theirs, confidence=confidence, resamples=1000)
        assert interval is not None
        covered += interval.low <= 0.1 <= interval.high
    # 400 trials at 95% lie within 2.2 points of it in 19 of 20 runs; the seed is fixed.
    assert least <= covered / TRIALS <= 0.99


@pytest.mark.parametrize(("truth", "low", "high"), [(0.0, 0.0, 0.05), (0.3, 0.9, 1.0), (-0.3, 0.0, 0.0)])
def test_models_of_one_quality_seldom_win_and_better_ones_do(truth: float, low: float, high: float) -> None:
    random = np.random.default_rng(2)
    wins = sum(compare(PSNR, *paired(random, 14, truth, skewed=False)).is_better for _ in range(100))
    assert low <= wins / 100 <= high


def test_pairing_finds_what_the_spread_of_the_images_hides() -> None:
    ours, theirs = paired(np.random.default_rng(3), 14, 0.3, skewed=False)
    assert compare(PSNR, ours, theirs).is_better
    assert not compare(PSNR, ours, theirs[::-1]).is_better


def test_direction_is_the_metric_s() -> None:
    high, low = [0.2, 0.21, 0.25, 0.22, 0.24], [0.1, 0.12, 0.15, 0.11, 0.13]
    assert compare(PSNR, high, low).is_better
    assert compare(PSNR, low, high).is_worse
    assert compare(GMSD, low, high).is_better
    assert compare(GMSD, high, low).is_worse
    assert "lower is better" in compare(GMSD, high, low).text


@pytest.mark.parametrize(
    ("ours", "theirs", "better", "lost"),
    [
        ([31.0] * 5, [30.0] * 5, True, 0),
        ([31.0] * 4, [30.0] * 4, False, 0),  # too few
        ([30.0] * 5, [30.0] * 5, False, 0),
        ([INF, *[31.0] * 5], [INF, *[30.0] * 5], True, 0),
        ([INF, *[31.0] * 5], [20.0, *[30.0] * 5], True, 0),
        ([20.0, *[31.0] * 5], [INF, *[30.0] * 5], False, 1),
        ([NAN, *[31.0] * 5], [20.0, *[30.0] * 5], False, 1),
        ([20.0, *[31.0] * 5], [NAN, *[30.0] * 5], True, 0),
        ([-INF, *[31.0] * 5], [30.0, *[30.0] * 5], False, 1),
        ([INF] * 5, [30.0] * 5, False, 0),  # nothing finite to compare
        ([], [], False, 0),
    ],
)
def test_values_without_order_have_a_rule(ours: list[float], theirs: list[float], better: bool, lost: int) -> None:
    comparison = compare(PSNR, ours, theirs)
    assert comparison.is_better is better
    assert comparison.num_lost == lost
    assert comparison.holds(-0.5) is (not lost)
    if lost:
        assert f"without 1 whose value is infinite or missing ({lost} of them lost)" in comparison.text


def test_few_images_and_ties_say_so() -> None:
    assert f"too few to prove anything: give at least {MIN_IMAGES}" in compare(PSNR, [31.0] * 2, [30.0] * 2).text
    assert "few: an interval of fewer than 10 images is rough" in compare(PSNR, [31.0] * 7, [30.0] * 7).text
    assert "few" not in compare(PSNR, [31.0] * 12, [30.0] * 12).text
    assert "no image has a finite value of both" in compare(PSNR, [INF], [INF]).text
    tie = compare(PSNR, [30.0] * 12, [30.0] * 12)
    assert not tie.is_better
    assert not tie.is_worse


@pytest.mark.parametrize(
    ("metric", "ours", "floor", "holds"),
    [
        ("psnr_y", 29.6, -0.5, True),
        ("psnr_y", 29.4, -0.5, False),
        ("gmsd", 30.4, 0.5, True),
        ("gmsd", 30.6, 0.5, False),
    ],
)
def test_floor_holds_up_to_the_largest_loss(metric: str, ours: float, floor: float, holds: bool) -> None:
    assert compare(METRICS[metric], [ours] * 6, [30.0] * 6).holds(floor) is holds

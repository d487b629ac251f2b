"""Intervals and verdicts over seeds and images: how often they are right on data of known truth, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy import ndarray
from scipy import stats

from pipeline.experiments.statistics import (
    ArmComparison,
    HierarchicalInterval,
    compare_arms,
    hierarchical_interval,
    paired_hierarchical_interval,
)
from pipeline.metrics import METRICS

INF, NAN = math.inf, math.nan
PSNR, GMSD = METRICS["psnr_y"], METRICS["gmsd"]
TRIALS = 1000
# Seeds, images, and the standard deviations of seeds, of images and of what neither explains.
DESIGNS = {
    "seeds dominate": (5, 19, 1.0, 0.2, 0.2),
    "images dominate": (5, 19, 0.2, 2.0, 0.2),
    "equal deviations": (5, 19, 1.0, 1.0, 1.0),
    "equal shares of the mean's variance": (5, 19, 5**0.5, 19**0.5, 0.3),
    "3 seeds": (3, 19, 1.0, 0.2, 0.2),
    "3 seeds, equal deviations": (3, 19, 1.0, 1.0, 1.0),
    "10 seeds": (10, 19, 1.0, 0.2, 0.2),
    "10 seeds, equal deviations": (10, 19, 1.0, 1.0, 1.0),
    "5 images": (5, 5, 1.0, 1.0, 0.3),
    "100 images": (5, 100, 1.0, 2.0, 1.0),
    "nothing but noise": (5, 19, 0.0, 0.0, 1.0),
}
designs = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)


def tables(design: tuple[int, int, float, float, float], truth: float = 0.0) -> list[ndarray]:
    """Tables of differences whose mean over all seeds and images of their kind is `truth`."""
    seeds, images, of_seeds, of_images, of_rest = design
    random = np.random.default_rng(7)
    return [
        truth
        + of_seeds * random.standard_normal((seeds, 1))
        + of_images * random.standard_normal((1, images))
        + of_rest * random.standard_normal((seeds, images))
        for _ in range(TRIALS)
    ]


def against_zero(differences: ndarray, margin: float | None = None) -> ArmComparison:
    theirs = np.random.default_rng(8).normal(28.0, 4.0, differences.shape)
    return compare_arms(PSNR, theirs + differences, theirs, margin=margin)


def interval_of(values: ndarray, confidence: float = 0.95) -> HierarchicalInterval:
    interval = hierarchical_interval(values, confidence=confidence)
    assert interval is not None
    return interval


@designs
def test_interval_covers_the_truth_as_often_as_it_says(design: tuple[int, int, float, float, float]) -> None:
    intervals = [interval_of(table) for table in tables(design, truth=3.0)]
    coverage = sum(interval.low <= 3.0 <= interval.high for interval in intervals) / TRIALS
    assert 0.93 <= coverage <= 0.98


@designs
def test_arms_of_one_quality_are_seldom_proven_different(design: tuple[int, int, float, float, float]) -> None:
    comparisons = [against_zero(table) for table in tables(design)]
    # A rate of 2.5% in 1,000 trials has a standard error of 0.5 points.
    assert sum(comparison.is_better for comparison in comparisons) / TRIALS <= 0.035
    assert sum(comparison.is_worse for comparison in comparisons) / TRIALS <= 0.035


@designs
@pytest.mark.parametrize("side", [-1, 1])
def test_difference_as_large_as_the_margin_is_seldom_called_equivalent(
    design: tuple[int, int, float, float, float], side: int
) -> None:
    seeds, images, *deviations = design
    error = math.sqrt(sum(d**2 / n for d, n in zip(deviations, (seeds, images, seeds * images), strict=True)))
    margin = 8 * error  # wide enough that the interval of nearly any table fits in
    verdicts = [against_zero(table, margin).is_equivalent for table in tables(design, truth=side * margin)]
    # A rate of 5% in 1,000 trials has a standard error of 0.7 points.
    assert sum(verdicts) / TRIALS <= 0.064
    assert sum(verdicts) > 0


@designs
def test_large_differences_and_equal_arms_are_recognised(design: tuple[int, int, float, float, float]) -> None:
    seeds, images, *deviations = design
    error = math.sqrt(sum(d**2 / n for d, n in zip(deviations, (seeds, images, seeds * images), strict=True)))
    found = [against_zero(table) for table in tables(design, truth=-10 * error)]
    assert sum(comparison.is_worse for comparison in found) / TRIALS >= 0.95
    equal = [against_zero(table, margin=10 * error) for table in tables(design)]
    assert sum(comparison.is_equivalent for comparison in equal) / TRIALS >= 0.95


@pytest.mark.parametrize("confidence", [0.90, 0.95])
@pytest.mark.parametrize("shape", [(5, 1), (2, 1), (1, 19)])
def test_one_seed_or_one_image_has_scipys_t_interval_of_the_others(shape: tuple[int, int], confidence: float) -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, shape)
    expected = stats.ttest_1samp(values.ravel(), 0.0).confidence_interval(confidence)
    interval = interval_of(values, confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-5)


def test_verdicts_of_one_image_are_scipys_t_tests_and_two_one_sided_tests() -> None:
    random, margin, seen = np.random.default_rng(4), 1.0, set()
    for _ in range(300):
        differences = random.normal(random.uniform(-1.5, 1.5), random.uniform(0.2, 1.5), (5, 1))
        found, sample = against_zero(differences, margin), differences.ravel()
        is_different = stats.ttest_1samp(sample, 0.0).pvalue < 0.05
        above = stats.ttest_1samp(sample, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(sample, margin, alternative="less").pvalue
        assert found.is_better == (is_different and sample.mean() > 0)
        assert found.is_worse == (is_different and sample.mean() < 0)
        assert found.is_equivalent == (max(above, below) < 0.05)
        seen.add(found.verdict)
    assert len(seen) == 6, "every verdict occurs"


def test_interval_of_many_seeds_and_images_is_the_pigeonhole_bootstraps() -> None:
    random = np.random.default_rng(5)
    table = random.normal(0, 1, (80, 1)) + random.exponential(1, (1, 150)) + random.normal(0, 1, (80, 150))
    seeds = random.multinomial(80, np.full(80, 1 / 80), 4000) / 80
    images = random.multinomial(150, np.full(150, 1 / 150), 4000) / 150
    low, high = np.quantile(np.sum(seeds @ table * images, axis=1), [0.025, 0.975])
    interval = interval_of(table)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_interval_by_hand() -> None:
    # Means of seeds 1 and 3, of images 1, 2 and 3; no interaction.
    interval = interval_of(np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]))
    half = math.hypot(12.7062 * math.sqrt(2 / 2), 4.3027 * math.sqrt(1 / 3))
    assert interval.mean == 2.0
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half), rel=1e-4)
    assert (interval.num_seeds, interval.num_images, interval.unknown) == (2, 3, "")


@pytest.mark.parametrize(
    ("shape", "unknown"),
    [
        ((1, 1), "one seed and one image: what others would give is not known"),
        ((1, 5), "one seed: what another would give is not known"),
        ((5, 1), "one image: what another would give is not known"),
    ],
)
def test_one_seed_or_image_says_what_cannot_be_known(shape: tuple[int, int], unknown: str) -> None:
    found = against_zero(np.random.default_rng(0).normal(9.0, 0.1, shape))
    assert found.interval is not None
    assert found.interval.unknown == unknown
    assert unknown in found.text
    assert found.verdict == ("better" if shape[0] > 1 else "not proven")


def test_one_seed_proves_nothing_not_even_that_arms_are_equivalent() -> None:
    assert against_zero(np.zeros((1, 50)), margin=1.0).verdict == "not proven"
    assert against_zero(np.zeros((2, 50)), margin=1.0).verdict == "equivalent"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.5, 1.7, "better"),
        (0.4, 0.6, "better, by less than the margin"),
        (-0.1, 0.1, "equivalent"),
        (-0.6, -0.4, "worse, by less than the margin"),
        (-1.7, -1.5, "worse"),
        (-3.0, 3.0, "not proven"),
    ],
)
def test_verdict_relates_proof_to_margin(low: float, high: float, verdict: str) -> None:
    differences = np.linspace(low, high, 5)[:, None] + np.zeros((5, 19))
    found = against_zero(differences, margin=1.0)
    assert found.verdict == verdict
    mirrored = {"better": "worse", "worse": "better"}
    expected = verdict.replace(verdict.split(",")[0], mirrored.get(verdict.split(",")[0], verdict))
    assert compare_arms(GMSD, differences, np.zeros_like(differences), margin=1.0).verdict == expected
    without_margin = verdict.split(",")[0]
    assert against_zero(differences).verdict == ("not proven" if verdict == "equivalent" else without_margin)


def test_exchanged_arms_and_reordered_seeds_tell_the_same() -> None:
    random = np.random.default_rng(6)
    ours, theirs = random.normal(0.4, 1, (5, 19)), random.normal(0, 1, (5, 19))
    one, other = compare_arms(PSNR, ours, theirs, margin=0.5), compare_arms(PSNR, theirs, ours, margin=0.5)
    assert one.interval is not None
    assert other.interval is not None
    assert (one.interval.mean, one.interval.low) == (-other.interval.mean, -other.interval.high)
    assert one == compare_arms(PSNR, ours.copy(), theirs.copy(), margin=0.5)
    reordered = paired_hierarchical_interval(ours[::-1], theirs[::-1])
    assert reordered is not None
    assert (reordered.low, reordered.high) == pytest.approx((one.interval.low, one.interval.high), rel=1e-12)


def test_pairing_removes_what_seeds_and_images_have_in_common() -> None:
    theirs = np.random.default_rng(9).normal(28.0, 4.0, (5, 19))
    paired = paired_hierarchical_interval(theirs + 0.1, theirs)
    assert paired is not None
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    assert interval_of(theirs + 0.1).low < interval_of(theirs).mean


def test_image_that_is_not_finite_under_one_seed_is_left_out_for_all() -> None:
    values = np.random.default_rng(2).normal(0, 1, (3, 6))
    holed = values.copy()
    holed[1, 4], holed[2, 0] = NAN, INF
    assert hierarchical_interval(holed) == hierarchical_interval(values[:, [1, 2, 3, 5]])
    assert paired_hierarchical_interval(holed, holed) == paired_hierarchical_interval(*[values[:, [1, 2, 3, 5]]] * 2)
    assert hierarchical_interval(np.full((3, 6), NAN)) is None
    assert hierarchical_interval(np.zeros((0, 6))) is None


def test_lost_image_forbids_better_and_equivalent_and_not_worse() -> None:
    theirs = np.random.default_rng(1).normal(28.0, 1.0, (4, 8))
    ours = theirs + 1.0
    ours[2, 3] = NAN
    found = compare_arms(PSNR, ours, theirs, margin=2.0)
    assert (found.num_lost, found.num_lost_by_other, found.verdict) == (1, 0, "not proven")
    assert "without 1 whose values are infinite or missing, 1 of them lost by this arm, 0 by the other" in found.text
    assert compare_arms(PSNR, theirs, ours, margin=2.0).verdict == "not proven", "the mirrored comparison"
    assert compare_arms(PSNR, ours - 2.0, theirs).verdict == "worse"
    assert compare_arms(PSNR, theirs, ours - 2.0).verdict == "better"
    both = np.where(np.isnan(ours), INF, theirs)
    assert compare_arms(PSNR, both, both, margin=1.0).verdict == "equivalent", "both are perfect there"


def test_text_has_the_numbers_the_verdict_and_the_margin() -> None:
    found = compare_arms(PSNR, np.full((5, 19), 0.25), np.zeros((5, 19)), margin=0.5)
    assert found.text == (
        "PSNR-Y +0.25 dB (95% interval +0.25 to +0.25; higher is better) over 5 seeds x 19 images; "
        "better, by less than the margin (margin 0.5 dB)"
    )
    empty = compare_arms(PSNR, np.full((5, 2), NAN), np.zeros((5, 2)))
    assert "no image has finite values under every seed of both arms" in empty.text
    assert empty.verdict == "not proven"


def test_wrong_shapes_and_margins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same seeds and images.*\(5, 19\).*\(4, 19\)"):
        compare_arms(PSNR, np.zeros((5, 19)), np.zeros((4, 19)))
    with pytest.raises(ValueError, match="above 0; got 0"):
        compare_arms(PSNR, np.zeros((5, 19)), np.zeros((5, 19)), margin=0.0)

"""Intervals of means over images: against theory, by hand, and under the rule for non-finite values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics.bootstrap import mean_interval, paired_interval


def test_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.RandomState(0).standard_normal(400) * 3 + 7
    interval = mean_interval(values.tolist())
    assert interval is not None
    error = values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error)
    assert interval.num_images == 400


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.RandomState(1)
    intervals = [mean_interval(random.exponential(2.0, 60).tolist(), resamples=500) for _ in range(300)]
    covered = sum(interval is not None and interval.low <= 2.0 <= interval.high for interval in intervals)
    assert 0.88 <= covered / 300 <= 0.98


def test_interval_is_the_same_on_every_call_and_differs_by_seed() -> None:
    values = np.random.RandomState(3).standard_normal(30).tolist()
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_interval_leaves_values_without_order_out() -> None:
    assert mean_interval([1.0, math.inf, 3.0, math.nan]) == mean_interval([1.0, 3.0])
    assert mean_interval([math.inf, math.nan]) is None
    assert mean_interval([]) is None


def test_interval_of_one_image_has_no_width() -> None:
    interval = mean_interval([5.0])
    assert interval is not None
    assert (interval.mean, interval.low, interval.high, interval.num_images) == (5.0, 5.0, 5.0, 1)


def test_paired_interval_sees_a_small_constant_lead_that_single_intervals_hide() -> None:
    theirs = np.random.RandomState(2).standard_normal(50) * 5
    ours = theirs + 0.1
    paired = paired_interval(ours.tolist(), theirs.tolist())
    ours_alone = mean_interval(ours.tolist())
    assert paired is not None
    assert ours_alone is not None
    assert paired.low == pytest.approx(0.1)
    assert ours_alone.low < np.mean(theirs)


def test_paired_interval_compares_images_where_both_are_finite() -> None:
    paired = paired_interval([1.0, math.inf, 3.0, 9.0], [0.0, 5.0, 1.0, math.nan])
    assert paired is not None
    assert paired.num_images == 2
    assert paired.mean == 1.5
    with pytest.raises(ValueError, match="argument"):
        paired_interval([1.0], [1.0, 2.0])

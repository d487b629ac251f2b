"""Bradley-Terry scores against theory, by hand and by scipy, and their intervals on choices of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from pipeline.experiments.bradley_terry import Choices, fit

TRIALS = 200
FIRST_AGAINST_LAST = {2: np.array([1.0, -1.0]), 3: np.array([1.0, 0.0, -1.0])}


def choices_of(
    random: np.random.Generator,
    strengths: list[float],
    num_voters: int,
    num_images: int,
    *,
    of_voters: float = 0.0,
    of_images: float = 0.0,
    num_questions: int = 60,
) -> Choices:
    """Choices of voters, and on images, whose preferences differ by these standard deviations; a fifth are repeats."""
    arms = len(strengths)
    first, second = np.triu_indices(arms, 1)
    pairs = np.stack([np.repeat(np.arange(num_images), first.size), *np.tile([first, second], num_images)])
    asked = [pairs[:, random.permutation(pairs.shape[1])[:num_questions]] for _ in range(num_voters)]
    columns = np.concatenate([np.concatenate([one, one[:, : one.shape[1] // 5]], axis=1) for one in asked], axis=1)
    image, left, right = columns
    voter = np.repeat(np.arange(num_voters), columns.shape[1] // num_voters)
    own = of_voters * random.standard_normal((num_voters, arms))
    there = of_images * random.standard_normal((num_images, arms))
    strength = np.array(strengths)
    odds = [strength[side] + own[voter, side] + there[image, side] for side in (left, right)]
    outcome = (random.random(image.size) < 1 / (1 + np.exp(odds[1] - odds[0]))).astype(float)
    return Choices(left, right, outcome, voter, image)


def between_two(outcomes: list[float], *, voters: list[int] | None = None) -> Choices:
    zeros = np.zeros(len(outcomes), np.int64)
    images = np.arange(len(outcomes))
    return Choices(zeros, zeros + 1, np.array(outcomes), np.array(voters) if voters else zeros, images)


def test_two_arms_have_the_log_odds_of_their_counts_with_half_a_choice_added() -> None:
    fitted = fit(between_two([1.0] * 7 + [0.0] * 3), 2)
    assert fitted.scores[0] - fitted.scores[1] == pytest.approx(math.log(7.5 / 3.5))
    assert fitted.scores.sum() == pytest.approx(0)
    with_ties = fit(between_two([1.0] * 6 + [0.0] * 2 + [0.5] * 2), 2)
    assert with_ties.scores == pytest.approx(fitted.scores), "neither is half a choice of each"


def test_scores_maximise_the_likelihood() -> None:
    choices = choices_of(np.random.default_rng(0), [0.8, 0.1, -0.9], 4, 12)
    ones, others = np.triu_indices(3, 1)

    def loss(scores: np.ndarray) -> float:
        odds = scores[choices.first] - scores[choices.second]
        imagined = scores[ones] - scores[others]
        return (np.logaddexp(0, odds) - choices.outcome * odds).sum() + 0.5 * (
            np.logaddexp(0, imagined) - imagined / 2
        ).sum()

    expected = optimize.minimize(loss, np.zeros(3), tol=1e-10).x
    assert fit(choices, 3).scores == pytest.approx(expected - expected.mean(), abs=1e-5)


def test_order_of_arms_is_recovered_and_an_unasked_arm_is_in_doubt() -> None:
    choices = choices_of(np.random.default_rng(1), [1.0, 0.3, -0.3, -1.0], 10, 15)
    fitted = fit(choices, 5)
    assert list(np.argsort(-fitted.scores)[[0, -1]]) == [0, 3]
    assert fitted.scores[1] > fitted.scores[2]
    _, low, high = fitted.interval(np.array([-0.25, -0.25, -0.25, -0.25, 1.0]), 0.95)
    assert low < -2
    assert high > 2


@pytest.mark.parametrize(
    ("num_voters", "num_images", "of_voters", "of_images"),
    [(1, 19, 0.0, 0.0), (3, 19, 0.0, 0.0), (3, 19, 0.5, 0.5), (8, 19, 0.5, 0.5), (8, 19, 1.0, 0.0), (8, 19, 0.0, 1.0)],
)
@pytest.mark.parametrize("strengths", [[0.5, 0.0, -0.5], [0.0, 0.0]])
def test_interval_covers_the_truth_as_often_as_it_says(
    num_voters: int, num_images: int, of_voters: float, of_images: float, strengths: list[float]
) -> None:
    random, contrast = np.random.default_rng(2), FIRST_AGAINST_LAST[len(strengths)]
    differing = {"of_voters": of_voters, "of_images": of_images}
    # Preferences that differ draw the average choice to the middle, so that the true one is that of very many.
    truth = float(fit(choices_of(random, strengths, 500, 500, **differing), len(strengths)).scores @ contrast)
    covered = 0
    for _ in range(TRIALS):
        choices = choices_of(random, strengths, num_voters, num_images, **differing)
        _, low, high = fit(choices, len(strengths)).interval(contrast, 0.95)
        covered += low <= truth <= high
    # A rate of 95% in 200 trials has a standard error of 1.5 points.
    assert covered / TRIALS >= 0.92


def test_interval_of_choices_without_clusters_is_that_of_logistic_regression() -> None:
    outcomes = [1.0] * 140 + [0.0] * 60
    value, low, high = fit(between_two(outcomes), 2).interval(np.array([1.0, -1.0]), 0.95)
    error = math.sqrt(1 / 140 + 1 / 60)
    assert (low, high) == pytest.approx((value - 1.97 * error, value + 1.97 * error), rel=0.02)


def test_unanimous_voters_leave_doubt() -> None:
    value, low, high = fit(between_two([1.0] * 20, voters=[0, 1] * 10), 2).interval(np.array([1.0, -1.0]), 0.95)
    assert value == pytest.approx(math.log(20.5 / 0.5))
    assert low < value - 2 < value + 2 < high


def test_voters_who_disagree_widen_the_interval() -> None:
    outcomes = [1.0] * 18 + [0.0] * 2
    agreeing = fit(between_two(outcomes, voters=[0, 1] * 10), 2).interval(np.array([1.0, -1.0]), 0.95)
    outcomes = [1.0] * 10 + [1.0, 0.0] * 5
    disagreeing = fit(between_two(outcomes, voters=[0] * 10 + [1] * 10), 2).interval(np.array([1.0, -1.0]), 0.95)
    assert disagreeing[2] - disagreeing[1] > 2 * (agreeing[2] - agreeing[1])

"""Bradley-Terry scores from choices between two arms, with intervals over voters and images.

**The scores.** Arm a is preferred to arm b with probability 1 / (1 + exp(score of b - score of a)); the mean of all
scores is 0. A choice of neither is half a choice of each. Every arm has one imaginary tie, spread over the other arms,
so that an arm that always wins has a finite score; with two arms this is the correction of Haldane.

**The intervals** say how far other voters *and* other images would move a score, by the rule of
`pipeline.experiments.statistics`: the half width is the root of the sum of two squares, each source with Student's
quantile of its own number. The variances are those of the fit with choices clustered by voter, and by image without
what single questions explain (Cameron, Gelbach and Miller 2011). No interval is narrower than independent choices
would make it: of unanimous voters there is no spread to measure. Where voters or images differ in their preferences,
scores are those of the average choice. A bootstrap over voters resamples the few that there are: of 200 studies with 19
images, preferences differing by voter and by image, its 95% intervals contain the true score in 67% with 3 voters and
84% with 8, and these in 98%.

References:
    Bradley and Terry 1952, Rank analysis of incomplete block designs, Biometrika 39; Cameron, Gelbach and Miller 2011,
    Robust inference with multiway clustering, Journal of Business & Economic Statistics 29(2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from pipeline.experiments.statistics import student_quantile

_MAX_ITERATIONS = 200
_SMALLEST_STEP = 1e-10


@dataclass(frozen=True)
class Choices:
    """Answered questions, one element each.

    Attributes:
        first: Index of one of the two arms.
        second: Index of the other.
        outcome: 1 where `first` was preferred, 0 where `second` was, 0.5 where neither was.
        voter: Index of who chose.
        image: Index of what was shown.
    """

    first: Int64[ndarray, " choices"]
    second: Int64[ndarray, " choices"]
    outcome: Float64[ndarray, " choices"]
    voter: Int64[ndarray, " choices"]
    image: Int64[ndarray, " choices"]


@dataclass(frozen=True)
class Fit:
    """Scores, and what is needed for the intervals of their differences.

    Attributes:
        scores: Log-odds, of mean 0.
        influence: What each choice adds to each score.
        covariance: Of the scores, if all choices were independent.
        choices: That were fitted.
    """

    scores: Float64[ndarray, " arms"]
    influence: Float64[ndarray, "choices arms"]
    covariance: Float64[ndarray, "arms arms"]
    choices: Choices

    def interval(self, contrast: Float64[ndarray, " arms"], confidence: float) -> tuple[float, float, float]:
        """Return a weighted sum of the scores, and the ends of its interval.

        Args:
            contrast: The weights; their sum is 0.
            confidence: How often such intervals shall contain the true score.
        """
        value, half = float(self.scores @ contrast), self._half_width(contrast, (1 + confidence) / 2)
        return value, value - half, value + half

    def _half_width(self, contrast: Float64[ndarray, " arms"], upper: float) -> float:
        choices, moved = self.choices, self.influence @ contrast
        pair = np.sort(np.stack([choices.first, choices.second]), axis=0)
        of_voters, num_voters = _clustered(moved, choices.voter[None])
        of_images, num_images = _clustered(moved, choices.image[None])
        of_questions, _ = _clustered(moved, np.stack([choices.voter, choices.image, *pair]))
        # Neither source is known from one member; with one voter, the images alone say how choices vary.
        main = [(of_voters, num_voters), (of_images, num_images)][num_voters == 1]
        beside = (max(of_images - of_questions, 0.0), num_images if num_voters > 1 else 1)
        least = NormalDist().inv_cdf(upper) ** 2 * float(contrast @ self.covariance @ contrast)
        return math.sqrt(max(_square(*main, upper), least) + _square(*beside, upper))


def fit(choices: Choices, num_arms: int) -> Fit:
    """Return the scores that make the choices most likely, by Newton's method.

    Args:
        choices: At least one.
        num_arms: At least 2; arms without a choice get a score near 0 and a wide interval.
    """
    rows = np.eye(num_arms)[choices.first] - np.eye(num_arms)[choices.second]
    ones, others = np.triu_indices(num_arms, 1)
    imagined = np.eye(num_arms)[ones] - np.eye(num_arms)[others]
    all_rows = np.concatenate([rows, imagined])
    outcomes = np.concatenate([choices.outcome, np.full(len(imagined), 0.5)])
    weights = np.concatenate([np.ones(len(rows)), np.full(len(imagined), 1 / (num_arms - 1))])
    scores = np.zeros(num_arms)
    for _ in range(_MAX_ITERATIONS):
        slope = all_rows.T @ (weights * (outcomes - _probabilities(all_rows, scores)))
        step = np.linalg.solve(_curvature(all_rows, weights, scores), slope)
        scores = scores + step
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    covariance = np.linalg.inv(_curvature(all_rows, weights, scores))
    residuals = choices.outcome - _probabilities(rows, scores)
    return Fit(scores, (rows * residuals[:, None]) @ covariance, covariance, choices)


def _probabilities(rows: Float64[ndarray, "rows arms"], scores: Float64[ndarray, " arms"]) -> Float64[ndarray, " rows"]:
    return 1 / (1 + np.exp(-rows @ scores))


def _curvature(
    rows: Float64[ndarray, "rows arms"], weights: Float64[ndarray, " rows"], scores: Float64[ndarray, " arms"]
) -> Float64[ndarray, "arms arms"]:
    probabilities = _probabilities(rows, scores)
    # The sum of all scores is not determined by choices; the constant keeps it at 0.
    return (rows.T * (weights * probabilities * (1 - probabilities))) @ rows + 1 / len(scores)


def _clustered(moved: Float64[ndarray, " choices"], labels: Int64[ndarray, "labels choices"]) -> tuple[float, int]:
    """Return the variance of the sum of `moved` over clusters of equal labels, and the number of clusters."""
    _, cluster = np.unique(labels, axis=1, return_inverse=True)
    sums = np.bincount(cluster.ravel(), moved)
    return float(np.square(sums).sum()) * sums.size / max(sums.size - 1, 1), sums.size


def _square(variance: float, size: int, upper: float) -> float:
    return student_quantile(upper, size - 1) ** 2 * variance if size > 1 else 0.0

"""Intervals and verdicts for arms of an experiment, over seeds and images at once.

Every arm trains once for each seed, and every trained generator is measured on the same images: seeds and images are
crossed, and both are samples. An interval must say how far the mean would move with other seeds *and* other images.

**The interval.** With s seeds and i images, the two-way table has the mean squares of seeds, of images and of their
interaction (of what neither explains). The half width is the root of the sum of two squares:

    seeds:  t(s - 1) * sqrt(seed mean square / (s * i))
    images: t(i - 1) * sqrt((image mean square - interaction mean square) / (s * i)), 0 where that is negative

The first is Student's interval of the seeds' means, exact for these images; the second adds what other images would
change. Each source keeps its own quantile (Howe 1974), so that few seeds are never excused by many images.

**Why no percentile bootstrap.** It resamples the few seeds that there are and covers too rarely. Of 1,000 tables of
known truth the 95% intervals of a pigeonhole bootstrap and this one hold it in: 3 seeds x 19 images, seeds dominating
74% and 96%; 5 x 19, seeds dominating 83% and 94%; both alike 89% and 96%; images dominating 92% and 95%. Stretching
the bootstrap's percentiles to this width gains one point for images as skewed as a lognormal distribution of log
deviation 1 (90%; this interval 88%) and nothing elsewhere, which is not worth its draws.

**Values that are not finite** follow `pipeline.metrics.order`. An image that is not finite under any seed, of either
arm, is excluded for all seeds, as the table must be whole. An image is lost to an arm where, under some seed, the
other arm has a value that it does not reach (`pipeline.metrics.comparison`). An arm that lost an image is never
better, nor equivalent.

Nothing is drawn: equal values have equal results, whatever the arms are called, and exchanged arms the mirrored one.

References:
    Howe 1974, Approximate confidence limits on the mean of X + Y, JASA 69; Owen 2007, The pigeonhole bootstrap, Annals
    of Applied Statistics 1(2); Schuirmann 1987, two one-sided tests, J. Pharmacokinetics and Biopharmaceutics 15(6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from pipeline.metrics.bootstrap import CONFIDENCE, Interval
from pipeline.metrics.comparison import is_lost
from pipeline.metrics.metric import Metric

EQUIVALENCE_CONFIDENCE = 0.90
"""Two one-sided tests at 5% each reject together just where this interval lies within the margin."""
MIN_SEEDS = 2
"""With one, nothing tells the method from the luck of its seed."""

Verdict: TypeAlias = Literal[
    "better", "better, by less than the margin", "worse", "worse, by less than the margin", "equivalent", "not proven"
]


@dataclass(frozen=True)
class HierarchicalInterval(Interval):
    """A mean over seeds and images, and how far others of their kind may move it.

    The mean is over the images that are finite under every seed, and `num_images` is their number. With one seed or one
    image the interval is that of the other side; with one of each it has no width, as nothing is known.

    Attributes:
        num_seeds: Seeds.
        confidence: How often such intervals contain the true mean.
    """

    num_seeds: int
    confidence: float

    @property
    def unknown(self) -> str:
        """What cannot be known from so few; empty where both seeds and images are several."""
        if self.num_seeds == 1 and self.num_images == 1:
            return "one seed and one image: what others would give is not known"
        if self.num_seeds == 1:
            return "one seed: what another would give is not known"
        return "one image: what another would give is not known" if self.num_images == 1 else ""


@dataclass(frozen=True)
class ArmComparison:
    """One arm against another, of the same seeds and images, by one metric.

    Attributes:
        metric: What they are compared by.
        margin: Differences below it do not matter, in the metric's unit; None: equivalence is not tested.
        interval: Of the mean difference, ours minus theirs, at `CONFIDENCE`; None where no image is finite.
        equivalence_interval: The same at `EQUIVALENCE_CONFIDENCE`.
        num_images: All images.
        num_lost: Images that our arm lost.
        num_lost_by_other: Images that their arm lost.
    """

    metric: Metric
    margin: float | None
    interval: HierarchicalInterval | None
    equivalence_interval: HierarchicalInterval | None
    num_images: int
    num_lost: int
    num_lost_by_other: int

    @property
    def is_better(self) -> bool:
        """Whether our arm is proven better, by whatever amount."""
        if self.interval is None or self.interval.num_seeds < MIN_SEEDS or self.num_lost:
            return False
        return self.interval.low > 0 if self.metric.is_higher_better else self.interval.high < 0

    @property
    def is_worse(self) -> bool:
        """Whether our arm is proven worse, by whatever amount."""
        if self.interval is None or self.interval.num_seeds < MIN_SEEDS or self.num_lost_by_other:
            return False
        return self.interval.high < 0 if self.metric.is_higher_better else self.interval.low > 0

    @property
    def is_equivalent(self) -> bool:
        """Whether the difference is proven to be smaller than the margin, whatever its sign."""
        inner = self.equivalence_interval
        if self.margin is None or inner is None or inner.num_seeds < MIN_SEEDS:
            return False
        is_inside = -self.margin < inner.low and inner.high < self.margin
        return is_inside and not self.num_lost and not self.num_lost_by_other

    @property
    def verdict(self) -> Verdict:
        """What is proven, in words.

        "better" and "worse" say that there is a difference, of any size; "equivalent" says that the difference, if
        there is one, is smaller than the margin. Where both are proven, it is real and too small to matter.
        """
        if self.is_better:
            return "better, by less than the margin" if self.is_equivalent else "better"
        if self.is_worse:
            return "worse, by less than the margin" if self.is_equivalent else "worse"
        return "equivalent" if self.is_equivalent else "not proven"

    @property
    def text(self) -> str:
        """The difference with its interval, the verdict, and what weakens it."""
        return "; ".join([self._numbers, self._verdict_at_margin, *self._weaknesses])

    @property
    def _numbers(self) -> str:
        name, places = self.metric.label, self.metric.decimals
        if self.interval is None:
            return f"{name}: no image has finite values under every seed of both arms"
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        ends = f"{self.interval.low:+.{places}f} to {self.interval.high:+.{places}f}"
        seeds, images = self.interval.num_seeds, self.interval.num_images
        counts = f"{seeds} seed{'s' * (seeds != 1)} x {images} image{'s' * (images != 1)}"
        about = f"{self.interval.confidence:.0%} interval {ends}; {self.metric.direction}"
        return f"{name} {self.interval.mean:+.{places}f}{unit} ({about}) over {counts}"

    @property
    def _verdict_at_margin(self) -> str:
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        return self.verdict if self.margin is None else f"{self.verdict} (margin {self.margin:g}{unit})"

    @property
    def _weaknesses(self) -> list[str]:
        unknown = [self.interval.unknown] if self.interval and self.interval.unknown else []
        left_out = self.num_images - (self.interval.num_images if self.interval else 0)
        lost = f"{self.num_lost} of them lost by this arm, {self.num_lost_by_other} by the other"
        return unknown + [f"without {left_out} whose values are infinite or missing, {lost}"] * bool(left_out)


def hierarchical_interval(
    values: Float[ndarray, "seeds images"], *, confidence: float = CONFIDENCE
) -> HierarchicalInterval | None:
    """Return the mean of one arm with its interval over seeds and images; None where no image is finite.

    Args:
        values: A metric of every image under every seed.
        confidence: How often such intervals shall hold the mean over all seeds and images of their kind; in (0, 1).
    """
    finite = values[:, np.isfinite(values).all(axis=0)]
    if not finite.size:
        return None
    half = _half_width(finite, confidence)
    mean, (num_seeds, num_images) = float(finite.mean()), finite.shape
    return HierarchicalInterval(mean, mean - half, mean + half, num_images, num_seeds, confidence)


def paired_hierarchical_interval(
    ours: Float[ndarray, "seeds images"], theirs: Float[ndarray, "seeds images"], *, confidence: float = CONFIDENCE
) -> HierarchicalInterval | None:
    """Return the interval of the mean difference `ours - theirs`, seed by seed and image by image.

    Args:
        ours: A metric of every image under every seed.
        theirs: Of the same seeds and images, in the same order.
        confidence: As for `hierarchical_interval`.

    Raises:
        ValueError: The shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"arms of the same seeds and images are compared; got {ours.shape} and {theirs.shape}")
    return hierarchical_interval(np.where(_both_finite(ours, theirs), ours, np.nan) - theirs, confidence=confidence)


def compare_arms(
    metric: Metric,
    ours: Float[ndarray, "seeds images"],
    theirs: Float[ndarray, "seeds images"],
    *,
    margin: float | None = None,
) -> ArmComparison:
    """Compare an arm with another by one metric.

    Args:
        metric: What the values are.
        ours: Our arm's value of every image under every seed.
        theirs: The other arm's, of the same seeds and images, in the same order.
        margin: Differences below it do not matter; above 0, in the metric's unit.

    Raises:
        ValueError: The shapes differ, or the margin is not above 0.
    """
    if margin is not None and not margin > 0:
        raise ValueError(f"a margin is above 0; got {margin}")
    return ArmComparison(
        metric,
        margin,
        paired_hierarchical_interval(ours, theirs),
        paired_hierarchical_interval(ours, theirs, confidence=EQUIVALENCE_CONFIDENCE),
        ours.shape[1],
        _num_lost(metric, ours, theirs),
        _num_lost(metric, theirs, ours),
    )


def _both_finite(
    ours: Float[ndarray, "seeds images"], theirs: Float[ndarray, "seeds images"]
) -> Bool[ndarray, "seeds images"]:
    return np.isfinite(ours) & np.isfinite(theirs)


def _num_lost(metric: Metric, ours: Float[ndarray, "seeds images"], theirs: Float[ndarray, "seeds images"]) -> int:
    """Return the number of images that are lost under some seed; only values that are not finite can be."""
    places = map(tuple, np.argwhere(~_both_finite(ours, theirs)).tolist())
    return len({place[1] for place in places if is_lost(metric, float(ours[place]), float(theirs[place]))})


def _half_width(values: Float[ndarray, "seeds images"], confidence: float) -> float:
    """Return the root of the sum of two squares that the module's docstring explains; 0 for a single value."""
    seeds, images = values.shape
    of_seeds, of_images = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seeds[:, None] - of_images + values.mean()
    # Of a side with a single member nothing is known, and there is no interaction.
    interaction = float(np.square(rest).sum() / ((seeds - 1) * (images - 1))) if min(seeds, images) > 1 else 0.0
    seed_variance = float(of_seeds.var(ddof=1)) / seeds if seeds > 1 else 0.0
    image_variance = float(of_images.var(ddof=1)) / images - interaction / (seeds * images) if images > 1 else 0.0
    upper = (1 + confidence) / 2
    squares = (
        student_quantile(upper, size - 1) ** 2 * max(variance, 0.0)
        for size, variance in ((seeds, seed_variance), (images, image_variance))
        if size > 1
    )
    return math.sqrt(sum(squares))


def student_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's distribution.

    Args:
        probability: From 0.5 to below 1.
        freedom: Degrees of freedom, at least 1.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))

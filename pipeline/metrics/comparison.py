"""Whether one model is better than another: a paired bootstrap over the images that both were measured on.

The rule for non-finite values (`pipeline.metrics.order`) in a comparison: the difference is over the images where
both have finite values. An image is lost where the champion has a value and the challenger has none, or where the
champion is perfect (infinite) and the challenger is not; with a lost image a model is never better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pipeline.metrics.bootstrap import CONFIDENCE, Interval, paired_interval
from pipeline.metrics.metric import Metric

MIN_IMAGES = 5
"""With fewer, all differences share a sign too often by chance: of four in one case of eight, of five in one of 16."""
FEW_IMAGES = 10
"""With fewer, an interval is rough, and texts say so."""


@dataclass(frozen=True)
class Comparison:
    """A challenger against a champion, by one metric.

    Attributes:
        metric: What they are compared by.
        interval: Of the mean difference, challenger minus champion; None where no image has two finite values.
        num_images: All images.
        num_lost: Images where the champion has a value that the challenger's cannot reach.
    """

    metric: Metric
    interval: Interval | None
    num_images: int
    num_lost: int

    @property
    def is_better(self) -> bool:
        """Whether the challenger is proven better."""
        if self.interval is None or self.num_lost or self.interval.num_images < MIN_IMAGES:
            return False
        return self.interval.low > 0 if self.metric.is_higher_better else self.interval.high < 0

    @property
    def is_worse(self) -> bool:
        """Whether the challenger is proven worse."""
        if self.interval is None or self.interval.num_images < MIN_IMAGES:
            return bool(self.num_lost)
        return self.interval.high < 0 if self.metric.is_higher_better else self.interval.low > 0

    @property
    def verdict(self) -> str:
        """Whether the challenger is proven better, proven worse, or neither, in words."""
        return "better" if self.is_better else "worse" if self.is_worse else "not proven"

    def holds(self, floor: float) -> bool:
        """Return whether the mean difference is no worse than `floor`, which is below 0 where higher is better."""
        if self.num_lost or self.interval is None:
            return not self.num_lost
        difference = self.interval.mean
        return difference >= floor if self.metric.is_higher_better else difference <= floor

    @property
    def text(self) -> str:
        """The difference with its interval, and what weakens it."""
        name, interval = self.metric.label, self.interval
        if interval is None:
            return f"{name}: no image has a finite value of both models"
        places, unit = self.metric.decimals, f" {self.metric.unit}" if self.metric.unit else ""
        ends = f"{interval.low:+.{places}f} to {interval.high:+.{places}f}"
        about = f"{CONFIDENCE:.0%} interval {ends}; {self.metric.direction}"
        parts = [f"{name} {interval.mean:+.{places}f}{unit} ({about})"]
        parts.append(f"over {interval.num_images} image{'s' if interval.num_images != 1 else ''}")
        if left_out := self.num_images - interval.num_images:
            parts.append(f"without {left_out} whose value is infinite or missing ({self.num_lost} of them lost)")
        if interval.num_images < MIN_IMAGES:
            parts.append(f"too few to prove anything: give at least {MIN_IMAGES}")
        elif interval.num_images < FEW_IMAGES:
            parts.append(f"few: an interval of fewer than {FEW_IMAGES} images is rough")
        return ", ".join(parts)


def compare(metric: Metric, ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compare a challenger with a champion, image by image.

    Args:
        metric: What the values are.
        ours: The challenger's values.
        theirs: The champion's, of the same images in the same order.

    Raises:
        ValueError: The numbers of values differ.
    """
    pairs = list(zip(ours, theirs, strict=True))
    num_finite = sum(math.isfinite(our) and math.isfinite(their) for our, their in pairs)
    interval = paired_interval(ours, theirs, confidence=expanded_confidence(num_finite))
    return Comparison(metric, interval, len(pairs), sum(is_lost(metric, our, their) for our, their in pairs))


def is_lost(metric: Metric, our: float, their: float) -> bool:
    """Return whether their value of an image is one that ours cannot reach; never where both are finite."""
    perfect = math.inf if metric.is_higher_better else -math.inf
    if math.isnan(their) or their == -perfect:
        return False
    return math.isnan(our) or our == -perfect or (their == perfect and our != perfect)


def expanded_confidence(num_images: int) -> float:
    """Return the confidence at which a percentile interval of few images covers as often as `CONFIDENCE` says.

    Resampling n images underestimates the variance of their mean by (n - 1) / n, and a normal tail is too short for so
    few; the expanded interval makes up for both.

    References:
        Hesterberg 2015, What teachers should know about the bootstrap, arXiv:1411.5279, section 5.3; Student's quantile
        by the expansion of Abramowitz and Stegun, 26.7.5.
    """
    freedom, normal = num_images - 1, NormalDist()
    if freedom < 1:
        return CONFIDENCE
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    student += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return 2 * normal.cdf(student * math.sqrt(num_images / freedom)) - 1

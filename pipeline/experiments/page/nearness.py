"""Which arms are far from the others: a control may be, and would leave the others no room in a chart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

_FAR = 6

MIN_ENLARGEMENT = 2
"""How many times larger the arms around the baseline must become to have a chart of their own."""


def largest_near(sizes: Sequence[float], least: float = 0.0) -> float:
    """Return the largest of some differences to the baseline that is at most six times the middle one.

    Args:
        sizes: Absolute differences of the other arms.
        least: Differences up to six times this one are near too.
    """
    middle = statistics.median_high(sizes) if sizes else 0.0
    return max((size for size in sizes if size <= _FAR * max(least, middle)), default=least)

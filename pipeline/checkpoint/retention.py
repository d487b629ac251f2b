"""Retention: the newest checkpoints, one per so many images, and the best by a metric.

The rule depends only on positions and on the run's metrics, never on times or on state of this process, so a resumed
run keeps the same checkpoints as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


def _every_position(images_seen: int) -> bool:
    return True


@dataclass(frozen=True)
class Retention:
    """A retention rule.

    Attributes:
        newest: How many of the newest scheduled checkpoints are kept, at least 1.
        every_images: Checkpoints at multiples of this are kept permanently; 0: none.
        is_scheduled: Whether an uninterrupted run has a checkpoint at a position. One that was saved because the run
            was asked to stop is kept only until the next one.
        scores: Score by position, higher is better; the best scheduled checkpoint is kept, the earliest of equals.
    """

    newest: int
    every_images: int = 0
    is_scheduled: Callable[[int], bool] = _every_position
    scores: Callable[[], Mapping[int, float]] = dict

    def kept(self, positions: Collection[int]) -> set[int]:
        """Return which of these positions, in images seen, are kept; the last one always is."""
        scheduled = sorted(filter(self.is_scheduled, positions))
        kept = {max(positions), *scheduled[-self.newest :]}
        if self.every_images:
            kept |= {position for position in scheduled if position % self.every_images == 0}
        scores = self.scores()
        scored = [position for position in scheduled if math.isfinite(scores.get(position, math.nan))]
        if scored:
            kept.add(max(scored, key=scores.__getitem__))  # max takes the first of equals
        return kept

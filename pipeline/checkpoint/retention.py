"""Which checkpoints stay: the newest, one in so many images, and the best by a metric.

The rule looks only at positions and at the run's metrics, never at times or at what this process remembers, so a
resumed run keeps the very checkpoints that an undisturbed one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


def _every_position(images_seen: int) -> bool:
    return True


@dataclass(frozen=True)
class Retention:
    """A rule for what to keep.

    Attributes:
        newest: How many of the newest scheduled checkpoints stay, at least 1.
        every_images: Those at multiples of this stay for good; 0: none.
        is_scheduled: Whether an undisturbed run has a checkpoint at a position. One that was saved because the run
            was asked to stop stays only until the next is there.
        scores: Position to score, higher is better; the best scheduled checkpoint stays, the earliest of equals.
    """

    newest: int
    every_images: int = 0
    is_scheduled: Callable[[int], bool] = _every_position
    scores: Callable[[], Mapping[int, float]] = dict

    def kept(self, positions: Collection[int]) -> set[int]:
        """Return which of these positions, in images seen, stay; the last always does."""
        scheduled = sorted(filter(self.is_scheduled, positions))
        kept = {max(positions), *scheduled[-self.newest :]}
        if self.every_images:
            kept |= {position for position in scheduled if position % self.every_images == 0}
        scores = self.scores()
        scored = [position for position in scheduled if math.isfinite(scores.get(position, math.nan))]
        if scored:
            kept.add(max(scored, key=scores.__getitem__))  # max takes the first of equals
        return kept

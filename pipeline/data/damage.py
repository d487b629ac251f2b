"""Counts replacement samples, and stops the run when there are too many.

Every rank counts those of all ranks, so that all ranks stop at the same step or none does.
"""

from __future__ import annotations

from pipeline.errors import DamagedDataError


class DamageTally:
    """Replacement samples read so far, in the whole run and in its current epoch.

    Args:
        num_samples: Samples per epoch.
        max_fraction: Largest fraction of an epoch's samples that may be replaced.
    """

    def __init__(self, num_samples: int, max_fraction: float) -> None:
        self._num_samples = num_samples
        self._max_fraction = max_fraction
        self._epoch = 0
        self._in_epoch = 0
        self.total = 0

    def add(self, count: int, images_seen: int) -> None:
        """Count one step's replacement samples on all ranks.

        Args:
            count: How many there were.
            images_seen: Position where the step began; a step belongs to the epoch in which it begins.

        Raises:
            DamagedDataError: This epoch has too many.
        """
        epoch = images_seen // self._num_samples
        self._in_epoch = count + (self._in_epoch if epoch == self._epoch else 0)
        self._epoch = epoch
        self.total += count
        if count and self._in_epoch > self._max_fraction * self._num_samples:
            raise DamagedDataError(
                f"{self._in_epoch} samples of epoch {epoch} are damaged, of {self._num_samples}; "
                f"data.max_bad_fraction={self._max_fraction:g} allows {int(self._max_fraction * self._num_samples)}.\n"
                "  The messages above name them. Repair the shards (jobs/verify.py) and rerun the same command:\n"
                "  it resumes from the last checkpoint. Or allow more with --data.max-bad-fraction"
            )

    def to_plain(self) -> dict[str, int]:
        """Return the state for a checkpoint."""
        return {"total": self.total, "epoch": self._epoch, "in_epoch": self._in_epoch}

    def load(self, state: dict[str, int]) -> None:
        """Restore the state that `to_plain` returned."""
        self.total, self._epoch, self._in_epoch = state["total"], state["epoch"], state["in_epoch"]

"""Updates that were left out because a loss or gradient was not finite: counted, and the end of a run of them.

The flags stay on the device; nothing waits for it but `counts` and `check`, at a report or a checkpoint. They are the
same on every rank, so that all ranks stop at the same step without asking each other.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import NonFiniteError
from shards.format.files import write_atomically

_SUFFIX = "/skipped"


@dataclass(frozen=True)
class StepRecord:
    """What one rank knows of one step.

    Attributes:
        images_seen: The run's position before the step.
        first_position: Position of the rank's first sample of the step; the others follow it.
        keys: The samples' keys with their variants, in order.
        learning_rate: The generator's.
        scalars: Losses and flags of this rank, 0-dim, on the device.
    """

    images_seen: int
    first_position: int
    keys: tuple[str, ...]
    learning_rate: float
    scalars: Mapping[str, Tensor]


class SkippedUpdates:
    """Counts, by network, the updates that were left out: in all, and in a row until now.

    Args:
        limit: So many in a row end the run.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._totals: dict[str, Tensor] = {}
        self._streaks: dict[str, Tensor] = {}
        self._recent: deque[StepRecord] = deque(maxlen=limit)

    def add(self, record: StepRecord) -> None:
        """Count one step; its scalars say by `NETWORK/skipped` whether an update was left out."""
        self._recent.append(record)
        for name, skipped in record.scalars.items():
            if name.endswith(_SUFFIX):
                network = name.removesuffix(_SUFFIX)
                self._totals[network] = self._totals.get(network, 0.0) + skipped
                self._streaks[network] = (self._streaks.get(network, 0.0) + 1) * skipped

    def counts(self) -> dict[str, list[int]]:
        """Return, by network, how many updates were left out since the run began, and in a row until now."""
        return {name: [int(total), int(self._streaks[name])] for name, total in sorted(self._totals.items())}

    def load(self, counts: Mapping[str, list[int]], device: torch.device) -> None:
        """Take over what `counts` gave."""
        for name, (total, streak) in counts.items():
            self._totals[name] = torch.tensor(float(total), device=device)
            self._streaks[name] = torch.tensor(float(streak), device=device)

    def check(self, folder: Path, rank: int) -> dict[str, float]:
        """Return the totals by the names that a report gives them, or end a run that makes no progress.

        Args:
            folder: Where each rank leaves what it knows of the last steps.
            rank: This process.

        Raises:
            NonFiniteError: A network was not updated in the last `limit` steps.
        """
        counts = self.counts()
        stuck = [f"the {name}'s last {streak}" for name, (_, streak) in counts.items() if streak >= self._limit]
        if stuck:
            folder.mkdir(exist_ok=True)
            path = folder / f"rank-{rank:03d}.json"
            write_atomically(path, json.dumps([_plain(record) for record in self._recent], indent=1).encode())
            raise NonFiniteError(
                f"{' and '.join(stuck)} updates were left out, since a loss or gradient was NaN or infinite on some "
                f"rank.\n  {path} has the keys, positions, learning rates and losses of the last "
                f"{len(self._recent)} steps.\n  The weights are as they were before. Lower the learning rate, set "
                "--schedule.gradient-clip-norm, or use --runtime.precision float32, and start a new run from the "
                "last checkpoint's weights; --schedule.max-skipped-updates lets more pass"
            )
        return {f"{name}/skipped_updates": float(total) for name, (total, _) in counts.items()}


def _plain(record: StepRecord) -> dict[str, object]:
    values = {name: float(value) for name, value in record.scalars.items()}
    return {
        "images_seen": record.images_seen,
        "positions": [record.first_position, record.first_position + len(record.keys) - 1],
        "keys": list(record.keys),
        "learning_rate": record.learning_rate,
        # JSON has no NaN.
        "scalars": {name: value if torch.tensor(value).isfinite() else str(value) for name, value in values.items()},
    }

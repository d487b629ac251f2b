"""Updates that were skipped because a loss or gradient was not finite: their counts, and the end of a stuck run.

The flags stay on the device; only `counts` and `check` wait for it, at a report or a checkpoint. They are the same on
every rank, so all ranks stop at the same step without communicating.
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


@dataclass(frozen=True)
class StepRecord:
    """One step as one rank saw it.

    Attributes:
        images_seen: The run's position before the step.
        first_position: Position of the rank's first sample of the step; the others follow it.
        keys: The samples' keys with their variants, in order.
        learning_rate: The generator's.
        scalars: Losses of this rank, 0-dim, on the device.
        skipped: By network, 1 where its update was skipped, else 0; 0-dim, on the device.
    """

    images_seen: int
    first_position: int
    keys: tuple[str, ...]
    learning_rate: float
    scalars: Mapping[str, Tensor]
    skipped: Mapping[str, Tensor]


class SkippedUpdates:
    """Counts the skipped updates of each network: in total, and the current streak.

    Args:
        limit: A streak of this length ends the run.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._totals: dict[str, Tensor] = {}
        self._streaks: dict[str, Tensor] = {}
        self._recent: deque[StepRecord] = deque(maxlen=limit)

    def add(self, record: StepRecord) -> None:
        """Count one step."""
        self._recent.append(record)
        for network, skipped in record.skipped.items():
            self._totals[network] = self._totals.get(network, 0.0) + skipped
            self._streaks[network] = (self._streaks.get(network, 0.0) + 1) * skipped

    def counts(self) -> dict[str, list[int]]:
        """Return total and current streak by network."""
        return {name: [int(total), int(self._streaks[name])] for name, total in sorted(self._totals.items())}

    def load(self, counts: Mapping[str, list[int]], device: torch.device) -> None:
        """Restore what `counts` returned."""
        for name, (total, streak) in counts.items():
            self._totals[name] = torch.tensor(float(total), device=device)
            self._streaks[name] = torch.tensor(float(streak), device=device)

    def check(self, folder: Path, rank: int) -> dict[str, float]:
        """Return the totals by the names of a report, or end a run that makes no progress.

        Args:
            folder: Where each rank writes its record of the last steps.
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
                f"{' and '.join(stuck)} updates were skipped, because a loss or gradient was NaN or infinite on some "
                f"rank.\n  {path} lists keys, positions, learning rates and losses of the last "
                f"{len(self._recent)} steps.\n  The weights are unchanged since. Lower the learning rate, set "
                "--schedule.gradient-clip-norm, or use --runtime.precision float32, and start a new run from the "
                "last checkpoint's weights; --schedule.max-skipped-updates tolerates more"
            )
        return {f"{name}/skipped_updates": float(total) for name, (total, _) in counts.items()}


def _plain(record: StepRecord) -> dict[str, object]:
    flags = {f"{network}/skipped": value for network, value in record.skipped.items()}
    values = {name: float(value) for name, value in {**record.scalars, **flags}.items()}
    return {
        "images_seen": record.images_seen,
        "positions": [record.first_position, record.first_position + len(record.keys) - 1],
        "keys": list(record.keys),
        "learning_rate": record.learning_rate,
        # JSON has no NaN.
        "scalars": {name: value if torch.tensor(value).isfinite() else str(value) for name, value in values.items()},
    }

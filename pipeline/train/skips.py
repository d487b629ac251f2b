"""Updates that were skipped because a loss or gradient was not finite: counts, and the end of a stuck run.

The flags stay on the device; only `counts` and `check` wait for it, at a report or a checkpoint. They are the same on
every rank, so all ranks stop at the same step without communicating.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import NonFiniteError
from pipeline.runtime.trainable import GradientNorms
from pipeline.train.non_finite import bad_terms, first_bad_gradient
from shards.format.files import write_atomically

_LOG = logging.getLogger(__name__)


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
        gradients: By network, the norms of its gradients; on the device, averaged over ranks.
    """

    images_seen: int
    first_position: int
    keys: tuple[str, ...]
    learning_rate: float
    scalars: Mapping[str, Tensor]
    skipped: Mapping[str, Tensor]
    gradients: Mapping[str, GradientNorms | None] = field(default_factory=dict)


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
        self._unreported: list[StepRecord] = []
        self._reported: dict[str, int] = {}

    def add(self, record: StepRecord) -> None:
        """Count one step."""
        self._recent.append(record)
        self._unreported.append(record)
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
            self._reported[name] = int(total)

    def check(self, folder: Path, rank: int, locate: Callable[[], str | None] = lambda: None) -> dict[str, float]:
        """Return the totals by the names of a report, or end a run that makes no progress.

        The first update that was skipped since the last report is logged with the term and layer where it began.

        Args:
            folder: Where each rank writes its record of the last steps.
            rank: This process.
            locate: Names the first layer whose output is not finite in the last step; all ranks call it if that step's
                update was skipped.

        Raises:
            NonFiniteError: A network was not updated in the last `limit` steps.
        """
        counts = self.counts()
        stuck = [f"the {name}'s last {streak}" for name, (_, streak) in counts.items() if streak >= self._limit]
        place = locate() if any(streak for _, streak in counts.values()) else None
        began = self._describe_new(counts, place, rank)
        if stuck:
            folder.mkdir(exist_ok=True)
            path = folder / f"rank-{rank:03d}.json"
            write_atomically(path, json.dumps([_plain(record) for record in self._recent], indent=1).encode())
            raise NonFiniteError(
                f"{' and '.join(stuck)} updates were skipped, because a loss or gradient was NaN or infinite on some "
                f"rank.\n{began}  {path} lists keys, positions, learning rates and losses of the last "
                f"{len(self._recent)} steps.\n  The weights are unchanged since. Lower the learning rate, set "
                "--schedule.gradient-clip-norm, or use --runtime.precision float32, and start a new run from the "
                "last checkpoint's weights; --schedule.max-skipped-updates tolerates more"
            )
        if began:
            _LOG.warning("%s", began.strip())
        self._unreported.clear()
        return {f"{name}/skipped_updates": float(total) for name, (total, _) in counts.items()}

    def _describe_new(self, counts: Mapping[str, list[int]], place: str | None, rank: int) -> str:
        """Describe the first update of each network that was skipped since the last report."""
        lines = []
        for network, (total, _) in counts.items():
            new, self._reported[network] = total - self._reported.get(network, 0), total
            records = [record for record in self._unreported if network in record.skipped]
            flags = torch.stack([record.skipped[network] for record in records]).tolist() if new and records else []
            first = next((record for record, flag in zip(records, flags, strict=True) if flag), None) if flags else None
            if first is not None:
                lines.append(
                    f"  {new} of the {network}'s updates were skipped; the first, at {first.images_seen:,} images, "
                    f"began in {_origin(network, first, place)} (rank {rank})\n"
                )
        return "".join(lines)


def _origin(network: str, record: StepRecord, place: str | None) -> str:
    terms = bad_terms(network, record.scalars)
    if terms:
        return ", ".join(terms) + (f"; the first NaN or infinite value is {place}" if place else "")
    layer = first_bad_gradient(record.gradients.get(network))
    if layer is None:
        return "the gradients: of ZeRO, which partitions them, or of another rank"
    return f"the gradient of `{layer}`, with finite losses on this rank"


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

"""Running means of a report, kept on the device until they are read.

Only `take` and `totals` wait for the device. Values that are not finite are excluded, as their updates are skipped. A
checkpoint between two reports carries the sums, so that a resumed run writes the same lines as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import saving
from shards.errors import InputError
from shards.format.files import write_atomically
from shards.format.storage import read_whole

_LARGEST = sys.float_info.max
_LAST_POSITION = 2**63 - 1
_MAX_BYTES = 1 << 31

SumOverRanks = Callable[[Tensor], Tensor]


class RunningMeans:
    """Sums of scalars by name, each with its own count of (rank, step) pairs."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add one step's detached 0-dim tensors."""
        for name, value in scalars.items():
            is_finite = value.isfinite()
            self._sums[name] = torch.where(is_finite, value.double(), 0.0) + self._sums.get(name, 0.0)
            self._counts[name] = is_finite.double() + self._counts.get(name, 0.0)

    def totals(self, sum_over_ranks: SumOverRanks) -> dict[str, list[float]]:
        """Return [sum, count] of each name over all ranks and steps so far. All ranks must call."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = sum_over_ranks(torch.stack([self._sums[name] for name in names]))
        counts = sum_over_ranks(torch.stack([self._counts[name] for name in names]))
        return {name: [float(sums[i]), float(counts[i])] for i, name in enumerate(names)}

    def take(self, sum_over_ranks: SumOverRanks) -> dict[str, float]:
        """Return the means over steps and ranks, and reset; a name that was never finite is missing.

        All ranks must call.
        """
        totals = self.totals(sum_over_ranks)
        self._sums.clear()
        self._counts.clear()
        return {name: total / count for name, (total, count) in totals.items() if count}

    def load(self, totals: Mapping[str, list[float]], device: torch.device, *, is_leader: bool) -> None:
        """Restore what `totals` returned: ranks other than 0 contribute zero, so that the reduced sum is unchanged."""
        for name, (total, count) in totals.items():
            self._sums[name] = torch.tensor(total if is_leader else 0.0, dtype=torch.float64, device=device)
            self._counts[name] = torch.tensor(count if is_leader else 0.0, dtype=torch.float64, device=device)


class MetricsFile:
    """`metrics.jsonl`: one line per report, the record of a run whatever happens to MLflow.

    Args:
        path: The file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rewind(self, images_seen: int) -> None:
        """Drop the lines after a position, and a truncated last line: the resumed run writes them again."""
        if self._path.is_file():
            kept = [line for line in self._lines() if _position(line) <= images_seen]
            with saving(self._path):
                write_atomically(self._path, b"".join(line + b"\n" for line in kept))

    def _lines(self) -> list[bytes]:
        if not self._path.is_file():
            return []
        try:
            return read_whole(self._path, _MAX_BYTES).splitlines()
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {error.strerror or error}; move it away") from error

    def write(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Append a line, strict JSON: values that are not finite have no entry.

        Raises:
            SaveError: The disk is full, or the folder is gone.
        """
        with saving(self._path), self._path.open("a", encoding="utf-8") as stream:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            stream.write(json.dumps({"images_seen": images_seen, **finite}, allow_nan=False) + "\n")

    def reports(self) -> list[tuple[int, dict[str, float]]]:
        """Return images seen and the values of every line, for a tracker that missed some.

        Raises:
            InputError: The file cannot be read, or is none of this kind.
        """
        found = [_values(line) for line in self._lines()]
        return [
            (int(values["images_seen"]), {name: value for name, value in values.items() if name != "images_seen"})
            for values in found
            if values
        ]

    def validations(self, name: str) -> dict[int, float]:
        """Return a metric of the validations by position.

        Args:
            name: `psnr_y` for the mean over the sets, `Set5/psnr_y` for one set.
        """
        return validations_of(self.reports(), name)


def validations_of(reports: Iterable[tuple[int, Mapping[str, float]]], name: str) -> dict[int, float]:
    """Return a metric of the validations among some reports; see `MetricsFile.validations`."""
    found: dict[int, float] = {}
    for images_seen, values in reports:
        of_sets = [value for key, value in values.items() if key == name or key.endswith(f"/{name}")]
        if of_sets:
            found[images_seen] = sum(of_sets) / len(of_sets)
    return found


def _values(line: bytes) -> dict[str, float]:
    """Return the finite numbers of a line; none of one that is no report, such as one that was truncated by a kill."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict) or not _is_position(values.get("images_seen")):
        return {}
    # Older files have Infinity and NaN.
    return {name: value for name, value in values.items() if type(value) in {int, float} and abs(value) <= _LARGEST}


def _is_position(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LAST_POSITION


def _position(line: bytes) -> float:
    return _values(line).get("images_seen", float("inf"))

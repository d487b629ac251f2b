"""The results of an evaluation, per set and per image: as text, and as the JSON document of jobs/evaluate.py."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.inference.evaluate import Evaluated, against_bicubic, protocol_of, result_names
from pipeline.inference.named_model import NamedModel
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import mean_interval
from pipeline.metrics.order import for_json, mean
from shards.format.files import sha256_of, write_atomically
from shards.format.rejects import count_notes, describe_notes

_TABLE_START = b"set,image,"
_REQUIRED_KEYS = frozenset({"model", "weights_sha256", "scale", "protocol", "sets"})


@dataclass
class EvaluationReport:
    """Collects images as they are evaluated."""

    model_name: str
    """As the user names it."""
    model: NamedModel
    metrics: tuple[Metric, ...]
    not_computed: dict[str, str]
    """Requested metrics that cannot be computed here, with what each requires."""
    by_set: dict[str, list[Evaluated]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Images that could not be used, with the reason; excluded from every mean."""

    def add(self, set_name: str, evaluated: Evaluated) -> None:
        """Add one image."""
        self.by_set.setdefault(set_name, []).append(evaluated)

    @property
    def images(self) -> list[Evaluated]:
        """All images, set by set."""
        return [image for images in self.by_set.values() for image in images]

    @property
    def num_images(self) -> int:
        """Number of images of all sets, including those that could not be used."""
        return len(self.images) + len(self.faults)

    @property
    def notes(self) -> dict[str, int]:
        """How many images were not measured as they are in their files, by what was lost or assumed."""
        return count_notes(image.pair.notes for image in self.images)

    def text(self) -> str:
        """Return one line per set, with the means, and what they do not show."""
        lines = [
            f"{name}: {', '.join(against_bicubic(metric, self._mean(images)) for metric in self.metrics)}"
            for name, images in self.by_set.items()
        ]
        lines += describe_notes(self.notes, "image(s)")
        return "\n".join([*lines, *(f"{name}: not computed: needs {what}" for name, what in self.not_computed.items())])

    def write(self, path: Path) -> None:
        """Write the JSON document; its folder is created if need be."""
        document: dict[str, Any] = {
            "model": self.model_name,
            "weights_sha256": sha256_of(self.model.weights),
            "scale": self.model.scale,
            "protocol": protocol_of(self.metrics),
            "sets": {
                name: {
                    "mean": self._mean(images),
                    "interval": self._intervals(images),
                    "images": {image.pair.name: for_json(image.metrics) for image in images},
                }
                for name, images in self.by_set.items()
            },
        }
        if self.not_computed:
            document["not_computed"] = self.not_computed
        if self.notes:
            document["photo_notes"] = self.notes
        if self.faults:
            document["faults"] = self.faults
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())

    def csv(self) -> bytes:
        """Return one line per image, with every result by name; empty where there is no finite number.

        Bytes of a name that are no UTF-8 are written as in the JSON document.
        """
        names = result_names(self.metrics)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["set", "image", *names])
        for set_name, images in self.by_set.items():
            for image in images:
                values = for_json(image.metrics)
                writer.writerow([set_name, image.pair.name, *(values[name] for name in names)])
        return lines.getvalue().encode(errors="backslashreplace")

    def _intervals(self, images: Sequence[Evaluated]) -> dict[str, list[float] | None]:
        """Return the ends of each mean's 95% bootstrap interval over images; None where there is no mean."""
        found = {name: mean_interval([image.metrics[name] for image in images]) for name in result_names(self.metrics)}
        return {name: None if interval is None else [interval.low, interval.high] for name, interval in found.items()}

    def _mean(self, images: Sequence[Evaluated]) -> dict[str, float | None]:
        return {key: mean(image.metrics[key] for image in images) for key in result_names(self.metrics)}


def is_image_table(path: Path) -> bool:
    """Return whether a file is a table that `EvaluationReport.csv` returned."""
    try:
        with path.open("rb") as opened:
            return opened.read(len(_TABLE_START)) == _TABLE_START
    except OSError:
        return False


def is_evaluation(path: Path) -> bool:
    """Return whether a file is a document that `EvaluationReport.write` wrote."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys() >= _REQUIRED_KEYS

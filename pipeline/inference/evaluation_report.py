"""The results of an evaluation: the JSON document and the CSV of jobs/evaluate.py, and the means that are shown."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.inference.evaluate import Evaluated, SetResults, protocol_of
from pipeline.inference.model_names import BICUBIC
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import Interval, mean_interval
from pipeline.metrics.comparison import Comparison, compare
from pipeline.metrics.order import for_json, mean
from shards.format.files import write_atomically
from shards.format.outputs import head_of
from shards.format.storage import read_whole
from shards.schema import SchemaError, parse_json

_MAX_BYTES = 1 << 30
_TABLE_STARTS = (b"set,image,", b"model,set,image,")
_REQUIRED_KEYS = frozenset({"model", "weights_sha256", "scale", "protocol", "sets"})


@dataclass(frozen=True)
class EvaluatedModel:
    """A model of an evaluation.

    Attributes:
        name: As the user names it.
        label: Short, for tables and figures.
        weights_sha256: Of its file.
    """

    name: str
    label: str
    weights_sha256: str


@dataclass(frozen=True)
class MeansOfSet:
    """The means of one model, or of bicubic upscaling, on a set: a row of a table, a point of a figure.

    Attributes:
        label: The model.
        intervals: By metric; None where no image has a finite value.
    """

    label: str
    intervals: dict[str, Interval | None]


@dataclass
class EvaluationReport:
    """What was measured."""

    models: Sequence[EvaluatedModel]
    """All of one scale."""
    scale: int
    metrics: Sequence[Metric]
    not_computed: dict[str, str]
    """Requested metrics that cannot be computed here, with what each requires."""
    sets: dict[str, SetResults] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Images that could not be used, with the reason; excluded from every mean."""
    pictured: list[list[Evaluated]] = field(default_factory=list)
    """Every image as each model upscaled it, if a picture is wanted."""

    @property
    def num_images(self) -> int:
        """Number of images of all sets, including those that could not be used."""
        return sum(len(results.images) for results in self.sets.values()) + len(self.faults)

    @property
    def notes(self) -> dict[str, int]:
        """How many images were not measured as they are in their files, by what was lost or assumed."""
        total = Counter[str]()
        for results in self.sets.values():
            total.update(results.notes)
        return dict(sorted(total.items()))

    def means(self, set_name: str) -> list[MeansOfSet]:
        """Return the means on a set, of bicubic upscaling and then of each model, with 95% intervals over images."""
        results = self.sets[set_name]
        sources = [(BICUBIC, "bicubic_", 0), *((model.label, "", at) for at, model in enumerate(self.models))]
        return [
            MeansOfSet(
                label, {metric.name: mean_interval(results.of(prefix + metric.name, at)) for metric in self.metrics}
            )
            for label, prefix, at in sources
        ]

    def comparisons(self, set_name: str, at: int) -> list[Comparison]:
        """Return a later model against the first on a set, by each metric."""
        results = self.sets[set_name]
        return [compare(metric, results.of(metric.name, at), results.of(metric.name)) for metric in self.metrics]

    def write(self, path: Path) -> None:
        """Write the JSON document; its folder is created if need be."""
        documents = [self._document(at) for at in range(len(self.models))]
        differences = [self._difference(at) for at in range(1, len(self.models))]
        document = {"models": documents, "differences": differences} if differences else documents[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())

    def _document(self, at: int) -> dict[str, Any]:
        document: dict[str, Any] = {
            "model": self.models[at].name,
            "weights_sha256": self.models[at].weights_sha256,
            "scale": self.scale,
            "protocol": protocol_of(self.metrics),
            "sets": {name: _results(results, at) for name, results in self.sets.items()},
        }
        if self.not_computed:
            document["not_computed"] = self.not_computed
        if self.notes:
            document["photo_notes"] = self.notes
        if self.faults:
            document["faults"] = self.faults
        return document

    def _difference(self, at: int) -> dict[str, Any]:
        return {
            "model": self.models[at].name,
            "minus": self.models[0].name,
            "sets": {
                name: {one.metric.name: _difference_of(one) for one in self.comparisons(name, at)} for name in self.sets
            },
        }

    def csv(self) -> bytes:
        """Return one line per model and image, with every result by name; empty where there is no finite number.

        Bytes of a name that are no UTF-8 are written as in the JSON document.
        """
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        is_one = len(self.models) == 1
        names = next(iter(self.sets.values())).names
        writer.writerow(["set", "image", *names] if is_one else ["model", "set", "image", *names])
        for at, model in enumerate(self.models):
            for set_name, results in self.sets.items():
                for image, values in _by_image(results, at).items():
                    start = [set_name, image] if is_one else [model.label, set_name, image]
                    writer.writerow([*start, *(values[name] for name in names)])
        return lines.getvalue().encode(errors="backslashreplace")


def _by_image(results: SetResults, at: int) -> dict[str, dict[str, float | None]]:
    rows = (dict(zip(results.names, row, strict=True)) for row in results.values[at].tolist())
    return {image: for_json(row) for image, row in zip(results.images, rows, strict=True)}


def _results(results: SetResults, at: int) -> dict[str, Any]:
    values = {name: results.of(name, at) for name in results.names}
    return {
        "mean": {name: mean(found) for name, found in values.items()},
        "interval": {name: _ends(mean_interval(found)) for name, found in values.items()},
        "images": _by_image(results, at),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    """Return the ends of a 95% bootstrap interval over images; None where there is no mean."""
    return None if interval is None else [interval.low, interval.high]


def _difference_of(comparison: Comparison) -> dict[str, Any]:
    interval = comparison.interval
    return {
        "mean": None if interval is None else interval.mean,
        "interval": _ends(interval),
        "num_images": 0 if interval is None else interval.num_images,
        "num_lost": comparison.num_lost,
        "verdict": comparison.verdict,
    }


def is_image_table(path: Path) -> bool:
    """Return whether a file is a table that `EvaluationReport.csv` returned."""
    return head_of(path, max(map(len, _TABLE_STARTS))).startswith(_TABLE_STARTS)


def is_evaluation(path: Path) -> bool:
    """Return whether a file is a document that `EvaluationReport.write` wrote."""
    try:
        document = parse_json(read_whole(path, _MAX_BYTES))
    except (OSError, SchemaError):
        return False
    if isinstance(document, dict) and isinstance(document.get("models"), list):
        return bool(document["models"]) and all(map(_is_document, document["models"]))
    return _is_document(document)


def _is_document(value: object) -> bool:
    return isinstance(value, dict) and value.keys() >= _REQUIRED_KEYS

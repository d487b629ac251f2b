"""Pictures of the first seed of every arm, and of generators between its start and its end."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.data.evaluation import set_images
from pipeline.experiments.execution import Layout
from pipeline.experiments.measuring import finished_export
from pipeline.experiments.plan import PlannedRun
from pipeline.inference.device import best_device
from pipeline.inference.evaluate import Evaluated, measure_set
from pipeline.metrics import Metric
from pipeline.models.generators import Generator, load_generator
from pipeline.progress import Progress
from shards.format.documents import read_document
from shards.format.files import sha256_of, write_atomically
from shards.format.png import encode_png
from shards.schema import SchemaError, Sha256

SHARES = (0.25, 0.5, 0.75)
"""Shares of an arm's weights, the rest its start's, of the generators between them."""

_MAX_BYTES = 1 << 28

Interpolated = Mapping[float, Mapping[str, Float[ndarray, " images"]]]
"""Measurements by share and metric."""


def picture_arms(
    runs: Sequence[PlannedRun], layout: Layout, metrics: Sequence[Metric], start: Path | None
) -> dict[str, Interpolated]:
    """Write the pictures of some runs, one for each arm; what an earlier call finished is kept.

    Args:
        runs: Finished ones, the first of each arm.
        layout: Where the pictures go.
        metrics: To measure the generators between with.
        start: Weights that all arms started from; None: no generators between are measured.

    Returns:
        By arm, the measurements of the generators between.

    References:
        Wang et al. 2018, ESRGAN, arXiv:1809.00219, Sec. 3.4, for the interpolation of weights.
    """
    train = runs[0].preset.train
    num_images = sum(len(set_images(folder, train.generator.scale)) for folder in train.report.validation_sets)
    found: dict[str, Interpolated] = {}
    with Progress("pictures", len(runs) * num_images, "images") as bar:
        for run in runs:
            marker, marks = layout.pictures / f"{run.arm}.json", _marks(run, metrics, start)
            known = _read(marker, marks, num_images)
            if known is None:
                known = _picture(run, layout, metrics, start, bar)
                _write(marker, marks, known)
            else:
                bar.advance(num_images)
            found[run.arm] = known
    return found


def _picture(
    run: PlannedRun, layout: Layout, metrics: Sequence[Metric], start: Path | None, bar: Progress
) -> Interpolated:
    end = load_generator(finished_export(run)).to(best_device())
    between = {} if start is None else _between(load_generator(start).to(best_device()), end)

    def keep(set_name: str, evaluated: Sequence[Evaluated]) -> None:
        pair, first = evaluated[0].pair, evaluated[0]
        for method, picture in ((run.arm, first.sr), ("bicubic", first.bicubic), ("HR", pair.gt)):
            path = layout.pictures / method / set_name / f"{pair.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode_png(picture))

    values: dict[float, dict[str, list[float]]] = {share: {metric.name: [] for metric in metrics} for share in between}
    for folder in run.preset.train.report.validation_sets:
        results = measure_set([end, *between.values()], folder, end.scale, metrics, keep=keep, advance=bar.advance)
        for at, share in enumerate(between, start=1):
            for metric in metrics:
                values[share][metric.name] += results.of(metric.name, at)
    return {share: {name: np.array(row) for name, row in rows.items()} for share, rows in values.items()}


def _between(start: Generator, end: Generator) -> dict[float, Generator]:
    """Return the generators between two; none where they are of different sizes."""
    first, last = start.state_dict(), end.state_dict()
    if {name: one.shape for name, one in first.items()} != {name: one.shape for name, one in last.items()}:
        return {}
    found = {}
    for share in SHARES:
        found[share] = copy.deepcopy(end)
        found[share].load_state_dict({name: first[name].lerp(last[name], share) for name in last})
    return found


@dataclass(frozen=True)
class _Marks:
    """What pictures and measurements hang on."""

    weights_sha256: Sha256
    start_sha256: Sha256 | None
    metrics: tuple[str, ...]
    sets: tuple[str, ...]


@dataclass(frozen=True)
class _Marked:
    """The document that is written last: whose pictures these are, and the measurements by share and metric."""

    marks: _Marks
    interpolated: Mapping[Literal["0.25", "0.5", "0.75"], Mapping[str, tuple[float | None, ...]]]


def _marks(run: PlannedRun, metrics: Sequence[Metric], start: Path | None) -> _Marks:
    return _Marks(
        sha256_of(finished_export(run)),
        None if start is None else sha256_of(start),
        tuple(metric.name for metric in metrics),
        tuple(str(folder) for folder in run.preset.train.report.validation_sets),
    )


def _read(marker: Path, marks: _Marks, num_images: int) -> Interpolated | None:
    """Return what an earlier call measured; None where it did not end, or other weights were pictured."""
    try:
        document = read_document(marker, _Marked, _MAX_BYTES)
    except (OSError, SchemaError):
        return None
    rows = [row for by_metric in document.interpolated.values() for row in by_metric.values()]
    if document.marks != marks or any(len(row) > num_images for row in rows):
        return None
    return {
        float(share): {name: np.array(values, float) for name, values in by_metric.items()}  # None becomes NaN
        for share, by_metric in document.interpolated.items()
    }


def _write(marker: Path, marks: _Marks, found: Interpolated) -> None:
    interpolated = {
        str(share): {name: [*map(_finite, values.tolist())] for name, values in rows.items()}
        for share, rows in found.items()
    }
    document = {"marks": asdict(marks), "interpolated": interpolated}
    write_atomically(marker, json.dumps(document, allow_nan=False).encode())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

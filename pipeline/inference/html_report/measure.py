"""Runs models side by side on evaluation sets: each photo once, with every picture and number of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.evaluation import EvaluationPair, evaluation_files, read_pair
from pipeline.inference.html_report.columns import Column
from pipeline.inference.html_report.names import BICUBIC
from pipeline.inference.named_model import NamedModel
from pipeline.inference.upscale import upscale
from shards.degradation import bicubic
from shards.errors import InputError


@dataclass(frozen=True)
class Measured:
    """One photo.

    Attributes:
        set_name: Its evaluation set.
        pair: LQ and HR.
        pictures: (H, W, 3) uint8 by the name of what made it: bicubic upscaling, then the models.
        values: For each of these, each column's value by name.
    """

    set_name: str
    pair: EvaluationPair
    pictures: dict[str, np.ndarray]
    values: dict[str, dict[str, float]]


def measure_sets(
    models: Mapping[str, NamedModel],
    sets: Sequence[Path],
    scale: int,
    columns: Sequence[Column],
    skip: Callable[[InputError], None],
) -> Iterator[Measured]:
    """Upscale and measure all photos, set by set, in the order of names.

    Args:
        models: By their short names.
        sets: Evaluation sets.
        scale: Of all models.
        columns: What to compute.
        skip: Called with what is wrong with a photo that cannot be used.
    """
    for folder in sets:
        for hr_file in evaluation_files(folder):
            try:
                measured = _measure(folder.name, read_pair(hr_file, scale), models, scale, columns)
            except InputError as error:
                skip(error)
            else:
                yield measured


def _measure(
    set_name: str, pair: EvaluationPair, models: Mapping[str, NamedModel], scale: int, columns: Sequence[Column]
) -> Measured:
    pictures = {BICUBIC: bicubic.upscale(pair.lq, scale)}
    pictures |= {name: upscale(model.generator, pair.lq, scale) for name, model in models.items()}
    values = {
        name: {column.name: column.measure(picture, pair.gt, scale) for column in columns}
        for name, picture in pictures.items()
    }
    return Measured(set_name, pair, pictures, values)

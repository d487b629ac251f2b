"""The rule for non-finite values, in every mean, comparison and file.

A metric of an image is finite, infinite where the image is perfect (PSNR of equal pixels), or NaN where it is not
defined:

* a mean is over the finite values; without a finite value there is none (None);
* two models are compared on the images where both have finite values, and one with NaN where the
  other has a value, or imperfect where the other is perfect, is never better (`pipeline.metrics.comparison`);
* a table marks the best mean of a column where all are over equally many images, and none otherwise;
* files contain no infinity and no NaN: strict JSON has null, `metrics.jsonl` and MLflow have no entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def mean(values: Iterable[float]) -> float | None:
    """Return the mean of the finite values; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def only_finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the entries that are finite numbers."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def for_json(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return all entries, with None for values that are not finite."""
    return dict.fromkeys(values) | only_finite(values)

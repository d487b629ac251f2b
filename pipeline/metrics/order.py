"""The rule for numbers without order, in every mean, comparison and file.

A metric of an image is finite, infinite where the image is perfect (PSNR of equal pixels), or NaN where it is not
defined:

* a mean is that of the finite values; without a finite value there is none (None);
* two models are compared on the images where both have finite values; if they are equal there, or there are none, the
  one with more perfect images is better; a model that has NaN where the other has not is never better;
* files hold no infinity and no NaN: strict JSON writes null, `metrics.jsonl` and MLflow have no entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def mean(values: Iterable[float]) -> float | None:
    """Return the mean of the finite values; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def only_finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the entries that are finite numbers."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def for_json(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return all entries, those that are no finite number as None."""
    return dict.fromkeys(values) | only_finite(values)


def is_better(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Compare two models image by image, by a metric where higher is better.

    Args:
        ours: Values of the images.
        theirs: Values of the same images, in the same order.

    Raises:
        ValueError: They are not equally many.
    """
    pairs = list(zip(ours, theirs, strict=True))
    if any(math.isnan(our) and not math.isnan(their) for our, their in pairs):
        return False
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    our_sum, their_sum = (sum(values) for values in (zip(*finite, strict=True) if finite else ((), ())))
    if our_sum != their_sum:
        return our_sum > their_sum
    return ours.count(math.inf) > theirs.count(math.inf)

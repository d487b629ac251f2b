"""Whether features cluster by class, as a number: how often the nearest neighbours of a cell have its class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

NUM_NEIGHBOURS = 10


def neighbour_purity(
    features: Float[ndarray, "cells c"], classes: Int[ndarray, " cells"], groups: Int[ndarray, " cells"]
) -> Float[ndarray, " cells"]:
    """Return for each cell the fraction of its nearest neighbours, in other groups, that have its class.

    Args:
        features: Standardised.
        classes: Of the cells.
        groups: Cells of one group are no neighbours: the cells of a crop share pixels and semantics.

    Returns:
        The fractions of the `NUM_NEIGHBOURS` nearest, or of all where there are fewer; NaN where there are none.
    """
    distance = _squared_distances(features.astype(np.float64))
    distance[groups[:, None] == groups] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
    is_other = np.isfinite(np.take_along_axis(distance, nearest, axis=1))
    same = (classes[nearest] == classes[:, None]) & is_other
    counted = is_other.sum(axis=1)
    return np.where(counted > 0, same.sum(axis=1) / np.maximum(counted, 1), np.nan)


def _squared_distances(points: Float[ndarray, "n c"]) -> Float[ndarray, "n n"]:
    squares = np.square(points).sum(axis=1)
    return squares[:, None] + squares - 2 * points @ points.T


def permuted_purity(classes: Int[ndarray, " cells"]) -> float:
    """Return the mean purity over all permutations of the classes: what features without any class would have."""
    _, counts = np.unique(classes, return_counts=True)
    return float((counts * (counts - 1)).sum() / (len(classes) * (len(classes) - 1)))

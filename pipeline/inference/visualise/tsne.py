"""scikit-learn's part: clusters, and a plane in which neighbours stay neighbours.

On one thread, so that the same input gives the same bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from shards.errors import InputError

_COMPONENTS = 50
_PERPLEXITY = 30.0


def cluster(vectors: Float[ndarray, "cells c"], num_classes: int, seed: int) -> Int[ndarray, " cells"]:
    """Return the class of each vector: by k-means of their directions, the largest class first.

    Raises:
        InputError: There are fewer different vectors than classes.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    if (found := len(np.unique(directions, axis=0))) < num_classes:
        raise InputError(f"--classes {num_classes} is too many for {found} different cell(s); lower it, or add photos")
    with threadpool_limits(1):
        labels = KMeans(num_classes, random_state=seed).fit_predict(directions)
    order = np.argsort(-np.bincount(labels, minlength=num_classes), kind="stable")
    return np.argsort(order)[labels]


def standardise(features: Float[ndarray, "cells c"]) -> Float[ndarray, "cells c"]:
    """Return features with a mean of 0 and a standard deviation of 1 per channel; a constant channel is 0."""
    spread = features.std(axis=0)
    is_constant = spread <= np.finfo(np.float32).eps * np.abs(features).max(axis=0)
    return np.where(is_constant, 0, (features - features.mean(axis=0)) / np.where(is_constant, 1, spread))


def embed(features: Float[ndarray, "cells c"]) -> Float[ndarray, "cells 2"]:
    """Return t-SNE's plane of standardised features, after a projection onto their first 50 principal components.

    It starts from the first two of these, so that nothing is drawn.

    References:
        van der Maaten and Hinton 2008, Visualizing data using t-SNE, JMLR 9.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    num_components = min(_COMPONENTS, *features.shape)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):
        components = PCA(num_components, svd_solver="full").fit_transform(features)
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)

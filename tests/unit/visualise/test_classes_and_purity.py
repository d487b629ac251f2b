"""Clusters, planes and purities of features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.inference.visualise.purity import NUM_NEIGHBOURS, neighbour_purity, permuted_purity
from pipeline.inference.visualise.tsne import cluster, embed, standardise
from shards.errors import InputError


def separated(num_cells: int = 120, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Points in clusters that are far apart, in directions of their own, and the cluster of each."""
    random = np.random.RandomState(0)
    classes = np.arange(num_cells) % num_classes
    return 100 * np.eye(8)[classes] + random.standard_normal((num_cells, 8)), classes


def test_purity_of_separated_clusters_is_1_and_of_random_features_that_of_permuted_classes() -> None:
    features, classes = separated()
    groups = np.arange(120) // 10
    assert neighbour_purity(features, classes, groups).tolist() == [1.0] * 120
    noise = np.random.RandomState(1).standard_normal((1200, 8))
    of_noise = neighbour_purity(noise, np.arange(1200) % 3, np.arange(1200) // 10).mean()
    assert of_noise == pytest.approx(permuted_purity(np.arange(1200) % 3), abs=0.02)


def test_cells_of_a_group_are_no_neighbours() -> None:
    features = np.array([[0.0], [0.1], [5.0], [5.1]])
    classes = np.array([0, 0, 1, 1])
    # Each cell's near twin is of its own group, so that only the cells of the other class are left.
    assert neighbour_purity(features, classes, np.array([0, 0, 1, 1])).tolist() == [0.0] * 4
    assert neighbour_purity(features, classes, np.array([0, 1, 2, 3])) == pytest.approx([1 / 3] * 4)
    assert np.isnan(neighbour_purity(features, classes, np.zeros(4, int))).all()


def test_nearest_neighbours_alone_count() -> None:
    features, classes = separated(num_cells=8 * NUM_NEIGHBOURS, num_classes=2)
    groups = np.arange(len(classes))
    assert neighbour_purity(features, classes, groups).min() == 1.0


def test_permuted_purity_is_the_mean_over_permutations() -> None:
    features, classes = separated(num_cells=60)
    classes = np.where(np.arange(60) < 30, 0, classes)
    random = np.random.RandomState(0)
    found = [neighbour_purity(features, random.permutation(classes), np.arange(60)).mean() for _ in range(400)]
    assert permuted_purity(classes) == pytest.approx(np.mean(found), abs=0.005)


def test_clusters_are_directions_the_largest_first_and_the_same_for_a_seed() -> None:
    features, classes = separated(num_cells=90)
    features, classes = features[10:], classes[10:]
    found = cluster(features * np.linspace(1, 50, 80)[:, None], 3, seed=0)  # the length is no matter
    assert {(one, other) for one, other in zip(classes.tolist(), found.tolist(), strict=True)} == {
        (one, int(found[classes == one][0])) for one in range(3)
    }
    counts = np.bincount(found)
    assert counts.tolist() == sorted(counts, reverse=True)
    assert np.array_equal(found, cluster(features * np.linspace(1, 50, 80)[:, None], 3, seed=0))


def test_classes_when_more_than_cells_are_refused() -> None:
    with pytest.raises(InputError, match=r"--classes 3 is too many for 1 different cell"):
        cluster(np.ones((20, 4)), 3, seed=0)


def test_standardised_channels_have_one_scale_and_constant_ones_are_0() -> None:
    features = np.random.RandomState(0).standard_normal((50, 3)).astype(np.float32) * [1, 1e3, 0] + [0, 5, 7]
    standardised = standardise(features)
    assert standardised.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert standardised.std(axis=0) == pytest.approx([1, 1, 0])


def test_plane_keeps_clusters_apart_and_is_the_same_again() -> None:
    features, classes = separated(num_cells=60)
    plane = embed(standardise(features))
    assert neighbour_purity(plane, classes, np.arange(60)).mean() > 0.9
    assert np.array_equal(plane, embed(standardise(features)))

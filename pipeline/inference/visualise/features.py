"""The last features of a discriminator for cells of HR photos, with their semantics and without, and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from pipeline.inference.upscale import to_tensor
from pipeline.inference.visualise.opened import OpenRun
from pipeline.inference.visualise.photos import Photo, lay_windows
from pipeline.inference.visualise.purity import neighbour_purity
from pipeline.inference.visualise.tsne import cluster, standardise
from pipeline.inference.window import Window
from pipeline.metrics.bootstrap import Interval, mean_interval, paired_interval
from pipeline.models.discriminators import Discriminator
from pipeline.models.discriminators.last_features import last_features
from pipeline.models.semantics.extractor import SemanticExtractor

OWN, ZEROS, SHUFFLED, PLAIN = "semantics", "zeros", "shuffled", "plain"
"""What a discriminator is shown beside a photo: its semantics, zeros, those of another photo; or it takes none."""


@dataclass(frozen=True)
class ClassedCrops:
    """Crops of some photos that do not overlap, with a class for each of their cells of 16 px.

    Attributes:
        photos: The photos.
        photo: Of each crop, by its number.
        windows: Of the crops.
        semantics: Of the crops.
        classes: Of all cells; the largest class is 0.
        chosen: Cells that are compared, numbered over all crops, row by row.
    """

    photos: Sequence[Photo]
    photo: Int[ndarray, " crops"]
    windows: Sequence[Window]
    semantics: Sequence[Float[Tensor, "1 c grid grid"]]
    classes: Int[ndarray, "crops grid grid"]
    chosen: Int[ndarray, " cells"]

    @property
    def crop_of_chosen(self) -> Int[ndarray, " cells"]:
        """The crop of each chosen cell."""
        return self.chosen // self.classes[0].size

    @property
    def class_of_chosen(self) -> Int[ndarray, " cells"]:
        """The class of each chosen cell."""
        return self.classes.reshape(-1)[self.chosen]

    def images(self) -> list[Float[Tensor, "1 3 side side"]]:
        """Return the crops of HR, on the device of their semantics."""
        pairs = zip(self.photo, self.windows, self.semantics, strict=True)
        return [to_tensor(window.cut(self.photos[at].gt), semantics.device) for at, window, semantics in pairs]

    def purity(self, features: Float[ndarray, "cells c"]) -> list[float]:
        """Return the neighbour purity of the chosen cells' features, one mean per photo."""
        purity = neighbour_purity(features, self.class_of_chosen, self.crop_of_chosen)
        photo = self.photo[self.crop_of_chosen]
        return [float(np.nanmean(purity[photo == at])) for at in range(len(self.photos))]


def classed_crops(
    photos: Sequence[Photo],
    extractor: SemanticExtractor,
    crop_px: int,
    *,
    num_classes: int,
    num_cells: int,
    seed: int,
) -> ClassedCrops:
    """Cut photos into crops, and sort their cells into classes: clusters of the frozen vision model's map.

    Args:
        photos: Each with at least one crop.
        extractor: Gives the map.
        crop_px: Side of a crop.
        num_classes: Number of clusters.
        num_cells: Cells to choose, the same number from each photo where it has as many.
        seed: Of the clusters and of the choice.

    Raises:
        InputError: There are fewer different cells than classes.
    """
    windows = [_windows(photo, crop_px) for photo in photos]
    photo_of = np.repeat(np.arange(len(photos)), [len(each) for each in windows])
    listed = [window for each in windows for window in each]
    device = extractor.mean.device
    pairs = zip(photo_of.tolist(), listed, strict=True)
    cut = (to_tensor(window.cut(photos[at].gt), device) for at, window in pairs)
    semantics = [extractor(crop).float() for crop in cut]
    rows, columns = semantics[0].shape[-2:]
    classes = cluster(np.concatenate([_cells(each) for each in semantics]), num_classes, seed)
    chosen = _choose_cells(np.repeat(photo_of, rows * columns), num_cells // len(photos), seed)
    return ClassedCrops(photos, photo_of, listed, semantics, classes.reshape(-1, rows, columns), chosen)


def _windows(photo: Photo, crop_px: int) -> list[Window]:
    return [window for row in lay_windows(photo.gt, crop_px, crop_px) for window in row]


def _choose_cells(photo_of_cell: ndarray, per_photo: int, seed: int) -> Int[ndarray, " cells"]:
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = []
    for photo in np.unique(photo_of_cell):
        cells = np.flatnonzero(photo_of_cell == photo)
        chosen.append(np.sort(random.choice(cells, min(per_photo, len(cells)), replace=False)))
    return np.concatenate(chosen)


def _cells(features: Float[Tensor, "1 c grid grid"]) -> Float[ndarray, "cells c"]:
    return features[0].flatten(1).T.cpu().numpy()


def features_by_condition(run: OpenRun, name: str, crops: ClassedCrops) -> dict[str, Float[ndarray, "cells c"]]:
    """Return the features of the chosen cells under each condition that a discriminator can be put in."""
    network = run.discriminators[name]
    look, images = run.look(name), crops.images()
    own = [look(image) for image in images]
    given: dict[str, Sequence[Tensor | None]] = {PLAIN: own}
    seen = [semantics for semantics in own if semantics is not None]
    if seen:
        zeros = [torch.zeros_like(semantics) for semantics in seen]
        given = {OWN: own, ZEROS: zeros, SHUFFLED: [seen[at] for at in other_photos(crops.photo)]}
    return {condition: _gather(network, images, semantics, crops.chosen) for condition, semantics in given.items()}


def other_photos(photo: Int[ndarray, " crops"]) -> list[int]:
    """Return for each crop one of the next photo; the last photo's is of the first. There are at least two photos."""
    crops = [np.flatnonzero(photo == at) for at in range(photo[-1] + 1)]
    after = [*crops[1:], crops[0]]
    return [int(after[at][number % len(after[at])]) for at, each in enumerate(crops) for number in range(len(each))]


def _gather(
    network: Discriminator, images: Sequence[Tensor], semantics: Sequence[Tensor | None], chosen: ndarray
) -> Float[ndarray, "cells c"]:
    pairs = zip(images, semantics, strict=True)
    return standardise(np.concatenate([_cells(last_features(network, *pair)) for pair in pairs])[chosen])


@dataclass(frozen=True)
class Purities:
    """The neighbour purity by condition, one mean per photo.

    Attributes:
        by_condition: The first is what others are compared with.
        of_semantics: Of the semantics themselves, from which the classes are.
    """

    by_condition: Mapping[str, Sequence[float]]
    of_semantics: Sequence[float]

    @property
    def ceiling(self) -> float:
        """The mean over photos of that of the semantics."""
        return float(np.mean(self.of_semantics))

    def mean(self, condition: str) -> Interval | None:
        """Return the mean over photos."""
        return mean_interval(self.by_condition[condition])

    def differences(self) -> dict[str, Interval | None]:
        """Return by how much the first condition is above each other, over the photos."""
        first, *others = self.by_condition
        ours = self.by_condition[first]
        return {other: paired_interval(ours, self.by_condition[other]) for other in others}


def purities(crops: ClassedCrops, features: Mapping[str, Float[ndarray, "cells c"]]) -> Purities:
    """Return the neighbour purity of some features of the chosen cells, and of the semantics."""
    semantics = standardise(np.concatenate([_cells(each) for each in crops.semantics])[crops.chosen])
    return Purities({condition: crops.purity(each) for condition, each in features.items()}, crops.purity(semantics))

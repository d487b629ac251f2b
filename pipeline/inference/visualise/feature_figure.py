"""The picture of features: a plane of t-SNE for each condition, coloured by class, and where the classes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pipeline.inference.visualise.canvas import bare, caption, literal, new_figure, own_style, pixels_of, show_picture
from pipeline.inference.visualise.features import ClassedCrops
from pipeline.metrics.bootstrap import Interval
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.format.png import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMN_INCH = 3.6
_STRENGTH = 0.55
_PHOTOS_PER_ROW = 5


def draw_features(
    title: str,
    text: str,
    crops: ClassedCrops,
    planes: Mapping[str, Float[ndarray, "cells 2"]],
    purities: Mapping[str, Interval | None],
) -> Pixels:
    """Return the picture.

    Args:
        title: Which discriminator it is.
        text: What else the caption says.
        crops: The cells and their classes.
        planes: The cells' places by condition, in words.
        purities: Their neighbour purity by condition, likewise.
    """
    width_inch = max(3, len(planes)) * _COLUMN_INCH
    map_columns = max(3, min(len(crops.photos), _PHOTOS_PER_ROW))
    map_rows = -(-len(crops.photos) // map_columns)
    map_inch = width_inch / map_columns * 0.9 * map_rows
    with own_style():
        figure = new_figure(width_inch, _COLUMN_INCH + map_inch + 2)
        upper, lower = figure.add_gridspec(2, 1, height_ratios=[_COLUMN_INCH, map_inch])
        panels = upper.subgridspec(1, len(planes)).subplots(squeeze=False)
        for axes, (condition, plane) in zip(panels[0], planes.items(), strict=True):
            colours = class_colours(crops.class_of_chosen)
            axes.scatter(plane[:, 0], plane[:, 1], s=5, c=colours, linewidths=0)
            bare(axes, f"{condition}\n{_purity_text(purities[condition])}")
        places = lower.subgridspec(map_rows, map_columns).subplots(squeeze=False).ravel()
        for axes, photo, classes in zip(places, crops.photos, class_maps(crops), strict=False):
            show_picture(axes, classes, photo.name)
        for axes in places[len(crops.photos) :]:
            axes.set_axis_off()
        _add_legend(figure, crops.classes)
        caption(figure, title, text)
        return pixels_of(figure)


def _purity_text(interval: Interval | None) -> str:
    return "" if interval is None else f"purity {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def class_colours(classes: Int[ndarray, ...]) -> Float[ndarray, "... 3"]:
    """Return the colour of each class, from 0 to 1."""
    from matplotlib import colormaps

    return colormaps["tab10"](classes)[..., :3]


def class_maps(crops: ClassedCrops) -> Sequence[Pixels]:
    """Return the photos in gray, with the colours of the classes where there are crops."""
    pictures = [np.repeat(photo.gt.mean(axis=2, keepdims=True), 3, axis=2) for photo in crops.photos]
    for at, window, classes in zip(crops.photo, crops.windows, crops.classes, strict=True):
        squares = class_colours(classes).repeat(SEMANTIC_STRIDE_PX, axis=0).repeat(SEMANTIC_STRIDE_PX, axis=1)
        rows = slice(window.top_px, window.top_px + window.side_px)
        columns = slice(window.left_px, window.left_px + window.side_px)
        pictures[at][rows, columns] *= 1 - _STRENGTH
        pictures[at][rows, columns] += 255 * _STRENGTH * squares
    return [np.rint(picture).astype(np.uint8) for picture in pictures]


def _add_legend(figure: Figure, classes: Int[ndarray, "crops grid grid"]) -> None:
    from matplotlib.patches import Patch

    shares = np.bincount(classes.ravel()) / classes.size
    colours = class_colours(np.arange(len(shares)))
    patches = [
        Patch(color=tuple(colour), label=literal(f"class {number + 1}\n{share:.0%} of cells"))
        for number, (colour, share) in enumerate(zip(colours, shares, strict=True))
    ]
    figure.legend(handles=patches, loc="outside right upper", frameon=False, fontsize=8)

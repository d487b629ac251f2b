"""The picture of decisions: HR and SR of every photo, each beside its map, in one scale of colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inference.visualise.canvas import bare, caption, literal, new_figure, own_style, pixels_of, show_picture
from pipeline.inference.visualise.decisions import DecisionMap
from pipeline.inference.visualise.photos import Photo
from shards.format.png import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

_WIDTH_INCH = 12.0
_COLUMN_INCH = 2.72  # what the bar of colours leaves to each of four
_SMALLEST_RANGE = 0.02
_COVERED = 0.99
_COLOURS = "PuOr"
_OUTSIDE = "0.85"


@dataclass(frozen=True)
class DecidedPhoto:
    """A photo, and the maps of both of its pictures."""

    photo: Photo
    hr: DecisionMap
    sr: DecisionMap


def draw_decisions(title: str, text: str, decided: Sequence[DecidedPhoto], *, is_numbered: bool) -> Pixels:
    """Return the picture.

    Args:
        title: Which discriminator it is.
        text: What else the caption says.
        decided: The photos.
        is_numbered: Write its number into each square, as of a discriminator with one logit per crop.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    ratios = [one.photo.gt.shape[0] / one.photo.gt.shape[1] for one in decided]
    reach = colour_reach(decided)
    colours = ScalarMappable(Normalize(0.5 - reach, 0.5 + reach), _COLOURS)
    with own_style():
        figure = new_figure(_WIDTH_INCH, sum(ratio * _COLUMN_INCH + 0.3 for ratio in ratios) + 1)
        grid = figure.subplots(len(decided), 4, squeeze=False, height_ratios=ratios)
        for axes, one in zip(grid, decided, strict=True):
            show_picture(axes[0], one.photo.gt, "HR")
            axes[0].set_ylabel(literal(one.photo.name), fontsize=9)
            _show_map(axes[1], one.hr, one.photo.gt, "HR", colours, is_numbered=is_numbered)
            show_picture(axes[2], one.photo.sr, "SR")
            _show_map(axes[3], one.sr, one.photo.gt, "SR", colours, is_numbered=is_numbered)
        bar = figure.colorbar(colours, ax=grid, shrink=0.6, aspect=40, pad=0.01)
        bar.set_label("fake  ←  sigmoid of the logit  →  real", fontsize=8)
        caption(figure, title, text)
        return pixels_of(figure)


def colour_reach(decided: Sequence[DecidedPhoto]) -> float:
    """Return how far from one half the colours reach, for all maps: 99% of the values are inside."""
    maps = [each for one in decided for each in (one.hr, one.sr)]
    away = np.concatenate([np.abs(each.sigmoid - 0.5).ravel() for each in maps])
    return min(0.5, max(_SMALLEST_RANGE, float(np.quantile(away, _COVERED))))


def _show_map(
    axes: Axes, decisions: DecisionMap, picture: Pixels, name: str, colours: ScalarMappable, *, is_numbered: bool
) -> None:
    values = decisions.sigmoid
    low, high = colours.get_clim()
    axes.imshow(values, extent=decisions.extent_px, interpolation="nearest", cmap=_COLOURS, vmin=low, vmax=high)
    height_px, width_px = picture.shape[:2]
    axes.set_xlim(-0.5, width_px - 0.5)
    axes.set_ylim(height_px - 0.5, -0.5)
    axes.set_facecolor(_OUTSIDE)
    bare(axes, f"D on {name}: mean {values.mean():.3f}")
    if is_numbered:
        _write_numbers(axes, decisions)


def _write_numbers(axes: Axes, decisions: DecisionMap) -> None:
    for (row, column), value in np.ndenumerate(decisions.sigmoid):
        x = decisions.left_px + (column + 0.5) * decisions.cell_px
        y = decisions.top_px + (row + 0.5) * decisions.cell_px
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
        axes.text(x, y, f"{value:.3f}", ha="center", va="center", fontsize=7, bbox=box)

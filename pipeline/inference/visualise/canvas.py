"""A figure of matplotlib as pixels: the same for the same content, whatever the user's own style is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from shards.format.names import as_text
from shards.format.png import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
_CAPTION_SIZE = 9
_CHARACTERS_PER_INCH = 15


@contextmanager
def own_style() -> Iterator[None]:
    """Draw in matplotlib's default style in this block."""
    from matplotlib import style

    with style.context("default"):
        yield


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """Return an empty figure, whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inch, height_inch), dpi=DPI, layout="constrained")


def caption(figure: Figure, title: str, text: str) -> None:
    """Write a title above a figure and the way to read it below, letter by letter."""
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    lines = "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, width))
    figure.supxlabel(literal(lines), x=0.01, ha="left", fontsize=_CAPTION_SIZE)


def literal(text: str) -> str:
    """Return a text as matplotlib shows it letter by letter: `$` would begin a formula."""
    return as_text(text).replace("$", r"\$")


def show_picture(axes: Axes, picture: Pixels, title: str) -> None:
    """Show a picture without ticks, its pixels without smoothing."""
    axes.imshow(picture, interpolation="nearest")
    bare(axes, title)


def bare(axes: Axes, title: str) -> None:
    """Take the ticks from axes, and give them a title."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(literal(title), fontsize=10)


def pixels_of(figure: Figure) -> Pixels:
    """Return a figure as RGB pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])

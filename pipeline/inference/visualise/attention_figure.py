"""The picture of attention: for each query the crop with its cell, and where the cell looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.inference.attention import STRONGEST, AttendingCrop, CellAttention
from pipeline.inference.visualise.canvas import caption, new_figure, own_style, pixels_of, show_picture
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.format.png import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCH = 4.0


def draw_attention(title: str, text: str, queries: Sequence[tuple[AttendingCrop, CellAttention]]) -> Pixels:
    """Return the picture.

    Args:
        title: Which discriminator it is.
        text: What else the caption says.
        queries: Cells with the crops that they are of.
    """
    with own_style():
        figure = new_figure(2 * _PANEL_INCH + 1, len(queries) * (_PANEL_INCH + 0.4) + 1.6)
        grid = figure.subplots(len(queries), 2, squeeze=False)
        for number, (axes, (crop, cell)) in enumerate(zip(grid, queries, strict=True), start=1):
            low, high = cell.ends
            side_px, left_px, top_px = crop.window.side_px, crop.window.left_px, crop.window.top_px
            show_picture(
                axes[0], crop.pixels, f"query {number}: {crop.photo}\n{side_px} px from x={left_px}, y={top_px}"
            )
            share = f"strongest {STRONGEST:.0%} of positions: {cell.share:.0%} of weight"
            even = ", almost even" if cell.is_almost_even else ""
            show_picture(axes[1], cell.overlay(), f"gray {low} to orange {high} of the mean weight\n{share}{even}")
            for each in axes:
                _mark(each, cell)
        caption(figure, title, text)
        return pixels_of(figure)


def _mark(axes: Axes, cell: CellAttention) -> None:
    from matplotlib.patches import Rectangle

    side_px = SEMANTIC_STRIDE_PX
    corner = (cell.column * side_px - 0.5, cell.row * side_px - 0.5)
    for colour, width in (("black", 3.5), ("white", 1.5)):
        axes.add_patch(Rectangle(corner, side_px, side_px, fill=False, edgecolor=colour, linewidth=width))

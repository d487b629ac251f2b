"""Images with a few lines of text under them, side by side, as the pictures of `jobs/preview.py` are laid out."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.format.png import Pixels

PANEL_PX = 256
"""Smaller images are enlarged to at least this height."""
_GAP_PX = 8
_FONT_PX = 12
_LINE_PX = 15


def captioned_panel(image: Pixels, lines: list[str], num_lines: int) -> Pixels:
    """Enlarge a small image by a whole factor and write its lines under it."""
    factor = -(-PANEL_PX // len(image))
    image = image.repeat(factor, 0).repeat(factor, 1)
    caption = Image.new("RGB", (image.shape[1], _LINE_PX * num_lines + 4), "white")
    pen, font = ImageDraw.Draw(caption), ImageFont.load_default(_FONT_PX)
    for number, line in enumerate(lines):
        pen.text((2, 2 + _LINE_PX * number), _fit(line, font, image.shape[1] - 4), fill="black", font=font)
    return np.concatenate([image, np.asarray(caption)])


def _fit(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "...") > width_px:
        line = line[:-1]
    return line + "..."


def join_pictures(pictures: list[Pixels], axis: int) -> Pixels:
    """Join pictures horizontally (1) or vertically (0), with white gaps; smaller ones are padded in white."""
    across = 1 - axis
    size_px = max(picture.shape[across] for picture in pictures)
    pieces = []
    for number, picture in enumerate(pictures):
        widths = [(0, 0)] * 3
        widths[across] = (0, size_px - picture.shape[across])
        widths[axis] = (_GAP_PX if number else 0, 0)
        pieces.append(np.pad(picture, widths, constant_values=255))
    return np.concatenate(pieces, axis=axis)

"""Scores a photo and its sub-images: sharpness, JPEG blockiness, flat share, complexity.

All of it is integer arithmetic on differences of luma, summed once over cells of 8x8 px; the scores of a sub-image are
sums over the cells that lie in it whole. So the same pixels have the same scores on any machine, and a photo is read
once however much its sub-images overlap.

* sharpness: sum of |y[i] - 2 y[i+1] + y[i+2]| per sum of |y[i] - y[i+2]|, along rows and columns. Both grow with
  contrast, so the ratio hardly depends on what a photo shows.
* blockiness: of the eight positions modulo 8 that a step y[i] -> y[i+1] may have, the mean |step| of the strongest per
  that of the other seven, steps above 32 levels counted as 32; the mean of rows and columns. After Wang, Sheikh and
  Bovik (No-reference perceptual quality assessment of JPEG compressed images, ICIP 2002), but for any offset, since
  photos are cropped and turned after compression, and bounded, since one edge of a house outweighs all blocks.
* flat_share: share of cells in which the mean |step| is below one level of 255.
* complexity: the mean |step| in levels of 255, spatial information as in Yu and Winkler (Image complexity and spatial
  information, QoMEX 2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16, Int64, UInt16
from PIL import Image

from shards.format.curation import MAX_SCORE, Scores
from shards.write.subimages import Position

CELL_PX = 8
_REACH_PX = 2  # a cell's differences reach two pixels beyond it
_STRIP_CELLS = 8  # rows of cells at once: their differences stay in the processor's cache
_STEPS_PER_CELL = 2 * CELL_PX**2
_MAX_BLOCK_STEP = 32
_BENDS, _SPANS, _STEPS, _FLAT, _ROWS, _COLUMNS = 0, 1, 2, 3, 4, 4 + CELL_PX
_NUM_SUMS = 4 + 2 * CELL_PX


def score_photo(luma: Image.Image, positions: Sequence[Position], sub_image_px: int) -> Scores:
    """Score a photo and its sub-images.

    Args:
        luma: The photo, 8-bit gray (mode L), at least a sub-image large.
        positions: Of its sub-images.
        sub_image_px: Side of a sub-image, at least `shards.format.curation.MIN_SCORED_PX`.

    Returns:
        Thousandths: the photo's row, then one row for each sub-image.
    """
    cells = _sum_cells(np.asarray(luma))
    sums = [cells.sum(axis=(1, 2), dtype=np.int64)]
    sizes = [cells[0].size]
    for top_px, left_px in positions:
        inside = cells[:, _whole(top_px, sub_image_px), _whole(left_px, sub_image_px)]
        sums.append(inside.sum(axis=(1, 2), dtype=np.int64))
        sizes.append(inside[0].size)
    return _scores(np.array(sums), np.array(sizes))


def _whole(start_px: int, size_px: int) -> slice:
    """Return the cells that lie whole in a range of pixels."""
    return slice(-(-start_px // CELL_PX), (start_px + size_px) // CELL_PX)


def _sum_cells(luma: np.ndarray) -> UInt16[np.ndarray, "sums rows columns"]:
    num_rows, num_columns = ((side_px - _REACH_PX) // CELL_PX for side_px in luma.shape)
    cells = np.empty((_NUM_SUMS, num_rows, num_columns), np.uint16)
    for first in range(0, num_rows, _STRIP_CELLS):
        last = min(first + _STRIP_CELLS, num_rows)
        strip = luma[first * CELL_PX : last * CELL_PX + _REACH_PX, : num_columns * CELL_PX + _REACH_PX]
        cells[:, first:last] = _sum_strip(strip.astype(np.int16))
    return cells


def _sum_strip(luma: Int16[np.ndarray, "height_px width_px"]) -> UInt16[np.ndarray, "sums rows columns"]:
    height_px, width_px = (side_px - _REACH_PX for side_px in luma.shape)
    along_rows = np.diff(luma[:height_px], axis=1)
    along_columns = np.diff(luma[:, :width_px], axis=0)
    bends = np.abs(np.diff(along_rows, axis=1)) + np.abs(np.diff(along_columns, axis=0))
    spans = np.abs(along_rows[:, 1:] + along_rows[:, :-1]) + np.abs(along_columns[1:] + along_columns[:-1])
    row_steps, column_steps = np.abs(along_rows[:, :width_px]), np.abs(along_columns[:height_px])
    row_phases = _sum_rows(np.minimum(row_steps, _MAX_BLOCK_STEP)).reshape(-1, width_px // CELL_PX, CELL_PX)
    column_phases = _sum_columns(np.minimum(column_steps, _MAX_BLOCK_STEP)).reshape(-1, CELL_PX, width_px // CELL_PX)
    sums = np.empty((_NUM_SUMS, height_px // CELL_PX, width_px // CELL_PX), np.uint16)
    sums[_BENDS] = _sum_columns(_sum_rows(bends))
    sums[_SPANS] = _sum_columns(_sum_rows(spans))
    sums[_STEPS] = _sum_columns(_sum_rows(row_steps + column_steps))
    sums[_FLAT] = sums[_STEPS] < _STEPS_PER_CELL
    sums[_ROWS:_COLUMNS] = np.moveaxis(row_phases, 2, 0)
    sums[_COLUMNS:] = np.moveaxis(column_phases, 1, 0)
    return sums


# No sum of a cell is above 2 * 64 * 510 = 65,280, so 16 bits hold all of them.
def _sum_rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, CELL_PX, values.shape[1]).sum(axis=1, dtype=np.uint16)


def _sum_columns(values: np.ndarray) -> np.ndarray:
    total = values[:, ::CELL_PX].astype(np.uint16)
    for offset in range(1, CELL_PX):
        total += values[:, offset::CELL_PX].astype(np.uint16)
    return total


def _scores(sums: Int64[np.ndarray, "rows sums"], num_cells: Int64[np.ndarray, " rows"]) -> Scores:
    sharpness = 1000 * sums[:, _BENDS] // np.maximum(sums[:, _SPANS], 1)
    flat_share = 1000 * sums[:, _FLAT] // num_cells
    complexity = 1000 * sums[:, _STEPS] // (_STEPS_PER_CELL * num_cells)
    blockiness = (_blockiness(sums[:, _ROWS:_COLUMNS]) + _blockiness(sums[:, _COLUMNS:])) // 2
    table = np.stack([sharpness, blockiness, flat_share, complexity], axis=1)
    return np.minimum(table, MAX_SCORE).astype(np.uint16)


def _blockiness(steps: Int64[np.ndarray, "rows 8"]) -> Int64[np.ndarray, " rows"]:
    strongest = steps.max(axis=1)
    others = steps.sum(axis=1) - strongest
    ratio = 1000 * (CELL_PX - 1) * strongest // np.maximum(others, 1)
    return np.where(strongest == 0, 1000, np.minimum(ratio, MAX_SCORE))

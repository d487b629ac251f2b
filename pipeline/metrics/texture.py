"""Textures of generated photos (`pipeline.experiments.shapes`): how much there is, and whether it is the right one.

Each kind of shape has stripes in a direction of its own. Their strength at a place is the magnitude of a Gabor filter
of their frequency and direction, averaged over some periods: the place of single stripes, which nothing in the LQ image
determines, does not count.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y

WAVES_CYCLES_PX = ((0.0, 0.25), (0.25, 0.0), (0.25, 0.25), (0.25, -0.25))
"""Cycles per px down and to the right of the stripes of each kind. All repeat every 4 px, the side of an LQ pixel: a
generator knows no absolute position, and could not draw stripes that differ from one LQ pixel to the next."""
_WINDOW_PX = 3.0
_AVERAGE_PX = 4.0
# Of the amplitude of the ground truth's stripes: what is weaker is no texture.
_VISIBLE = 0.25
_PROTOCOL = "BT.601 Y of the rounded 8-bit image, border = scale; stripes of the generated photos of shapes alone"


def stripes(image: Float[ndarray, "h w"]) -> Float[ndarray, "kinds h w"]:
    """Return the amplitude of each kind's stripes at each place, in the unit of the image."""
    from scipy import ndimage, signal

    reach = math.ceil(3 * _WINDOW_PX)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    window = np.exp(-(rows**2 + columns**2) / (2 * _WINDOW_PX**2))
    window /= window.sum() / 2
    found = []
    for down, right in WAVES_CYCLES_PX:
        wave = np.exp(2j * np.pi * (rows * down + columns * right))
        answer = signal.fftconvolve(image - image.mean(), window * wave, mode="same")
        found.append(ndimage.gaussian_filter(np.abs(answer), _AVERAGE_PX))
    return np.stack(found)


def _where_textured(
    sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int
) -> tuple[Float[ndarray, "kinds places"], Float[ndarray, "kinds places"]]:
    """Return the stripes of both images at the places where the ground truth has some."""
    ours, theirs = (stripes(to_y(cut_border(image, border_px))) for image in (sr, gt))
    strongest = theirs.max(axis=0)
    where = strongest > max(0.5 * float(strongest.max()), 1.0)
    return ours[:, where], theirs[:, where]


def _distance(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    """Return the difference of the amplitudes over the ground truth's own: 1 where the image has no stripes."""
    ours, theirs = _where_textured(sr, gt, border_px)
    return float(np.abs(ours - theirs).sum() / theirs.sum()) if theirs.size else math.nan


def _wrong(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    """Return the share of the places that have another kind's stripes."""
    ours, theirs = _where_textured(sr, gt, border_px)
    is_other = ours.argmax(axis=0) != theirs.argmax(axis=0)
    is_visible = ours.max(axis=0) > _VISIBLE * theirs.max(axis=0)
    return float((is_other & is_visible).mean()) if theirs.size else math.nan


TEXTURE_DISTANCE = Metric(
    name="texture-distance",
    label="texture distance",
    measure=_distance,
    protocol=_PROTOCOL,
    is_higher_better=False,
    kind="perceptual",
    smallest_side_px=32,
    decimals=3,
)
TEXTURE_WRONG = Metric(
    name="texture-wrong",
    label="wrong texture",
    measure=_wrong,
    protocol=_PROTOCOL,
    is_higher_better=False,
    kind="perceptual",
    smallest_side_px=32,
    decimals=3,
)

"""PSNR on luma: the first column of every super-resolution table."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y
from pipeline.metrics.psnr import psnr


def _psnr_y(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    return psnr(to_y(cut_border(sr, border_px)) - to_y(cut_border(gt, border_px)))


PSNR_Y = Metric(
    name="psnr_y",
    label="PSNR-Y",
    measure=_psnr_y,
    protocol="BT.601 Y of the rounded 8-bit image, border = scale",
    is_higher_better=True,
    decimals=2,
    unit="dB",
)

"""PSNR over the three channels together, as in the tables of Real-ESRGAN and the NTIRE challenges."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border
from pipeline.metrics.psnr import psnr


def _psnr_rgb(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    return psnr(cut_border(sr, border_px).astype(np.float64) - cut_border(gt, border_px))


PSNR_RGB = Metric(
    name="psnr_rgb",
    label="PSNR-RGB",
    measure=_psnr_rgb,
    protocol="RGB of the rounded 8-bit image, border = scale",
    is_higher_better=True,
    decimals=2,
    unit="dB",
)

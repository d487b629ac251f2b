"""GMSD: how unevenly the gradients of an image differ from those of the ground truth; piq computes it.

References:
    Xue et al. 2014, arXiv:1308.3052.
"""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, to_tensor


def _gmsd(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    from piq import gmsd

    with full_precision():
        return float(gmsd(to_tensor(sr).double(), to_tensor(gt).double()))


GMSD = Metric(
    name="gmsd",
    label="GMSD",
    measure=_gmsd,
    protocol="Y of YIQ of the rounded 8-bit image, whole image; Prewitt gradients after 2x2 averaging",
    is_higher_better=False,
    kind="perceptual",
    smallest_side_px=8,
)

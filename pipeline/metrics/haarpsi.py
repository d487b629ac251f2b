"""HaarPSI: similarity of local Haar wavelet coefficients, weighted by their visual importance; computed by piq.

References:
    Reisenhofer et al. 2018, arXiv:1607.06140.
"""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, to_tensor


def _haarpsi(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    from piq import haarpsi

    with full_precision():
        return float(haarpsi(to_tensor(sr).double(), to_tensor(gt).double()))


HAARPSI = Metric(
    name="haarpsi",
    label="HaarPSI",
    measure=_haarpsi,
    protocol="RGB of the rounded 8-bit image, whole image; three scales after 2x2 averaging, C=30, alpha=4.2",
    is_higher_better=True,
    kind="perceptual",
    smallest_side_px=16,
)

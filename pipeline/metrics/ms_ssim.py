"""MS-SSIM: structural similarity on luma at five scales.

Own code: piq pads a plane with an odd side before halving it, which moved the result by up to 1e-3 where one was odd
(at other sizes it is equal to 1e-14); torchmetrics averages over a reflected border too, which moves it by up to 5e-4.

References:
    Wang et al. 2003, Multiscale structural similarity for image quality assessment.
"""

from __future__ import annotations

from jaxtyping import Float64, UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y
from pipeline.metrics.ssim import C1, C2, WINDOW_PX, window_mean

# Exponents from the finest scale to the coarsest (Sec. 3.2 of the paper).
_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _ms_ssim(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    x, y = (to_y(cut_border(image, border_px)) for image in (sr, gt))
    product = 1.0
    for exponent in _EXPONENTS[:-1]:
        # A mean structure below zero, of opposite images, has no fractional power.
        product *= max(float(_terms(x, y)[1].mean()), 0.0) ** exponent
        x, y = _halved(x), _halved(y)
    luminance, structure = _terms(x, y)
    return product * max(float((luminance * structure).mean()), 0.0) ** _EXPONENTS[-1]


def _terms(
    x: Float64[ndarray, "h w"], y: Float64[ndarray, "h w"]
) -> tuple[Float64[ndarray, "h2 w2"], Float64[ndarray, "h2 w2"]]:
    """The luminance term, and contrast and structure as one term."""
    mean_x, mean_y = window_mean(x), window_mean(y)
    variances = window_mean(x * x) - mean_x**2 + window_mean(y * y) - mean_y**2
    covariance = window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


def _halved(plane: Float64[ndarray, "h w"]) -> Float64[ndarray, "h2 w2"]:
    height_px, width_px = (side // 2 for side in plane.shape)
    return plane[: 2 * height_px, : 2 * width_px].reshape(height_px, 2, width_px, 2).mean(axis=(1, 3))


MS_SSIM = Metric(
    name="ms_ssim",
    label="MS-SSIM",
    measure=_ms_ssim,
    protocol="BT.601 Y of the rounded 8-bit image, border = scale; five scales",
    is_higher_better=True,
    smallest_side_px=WINDOW_PX * 2 ** (len(_EXPONENTS) - 1),
)

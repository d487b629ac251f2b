"""Distance of radial power spectra: whether an image has the ground truth's amount of detail at each frequency.

It ignores where the detail is: plausible texture that differs from the original is not penalised; blur and noise are.

References:
    After Durall et al. 2020, arXiv:2003.01826.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import cut_border, to_y

_ROUNDING_VARIANCE = 1 / 12  # of 8-bit values: power below it is rounding noise, not detail
_SMALLEST_SIDE_PX = 16
_NYQUIST = 0.5  # cycles per pixel
_NO_POWER = 1e-12  # of a flat image: the rounding of float64


def _spectrum(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    ours, theirs = (radial_power_db(to_y(cut_border(image, border_px))) for image in (sr, gt))
    return float(np.abs(ours - theirs).mean())


def radial_power_db(image: Float64[ndarray, "h w"]) -> Float64[ndarray, " rings"]:
    """Power per pixel over frequency, in dB: the mean over each ring, up to 0.5 cycles per pixel, without the mean.

    There are half as many rings as the shorter side has pixels; a Hann window keeps the image's borders from adding
    power at all frequencies.
    """
    power = _power(image) + _ROUNDING_VARIANCE
    rings = min(image.shape) // 2
    ring = np.rint(_cycles_per_pixel(image.shape) * 2 * rings).astype(int).ravel()
    sums = np.bincount(ring, power.ravel())[1 : rings + 1]
    counts = np.bincount(ring)[1 : rings + 1]
    return 10 * np.log10(sums / counts)


def high_frequency_energy(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    """Return how much fine detail an image has: its energy above a quarter of Nyquist over the ground truth's.

    Energy is the power of luma over all frequencies from 0.125 to 0.5 cycles per pixel. 1: as much as the ground
    truth; less: smoother; more: sharpened or noisy. Where the detail is does not matter.

    Args:
        sr: RGB, rounded to 8 bits.
        gt: Ground truth.
        border_px: Ignored on each side.

    Returns:
        The ratio; NaN where the ground truth is flat.
    """
    ours, theirs = (_energy_above_quarter(to_y(cut_border(image, border_px))) for image in (sr, gt))
    return ours / theirs if theirs > _NO_POWER else math.nan


def _energy_above_quarter(image: Float64[ndarray, "h w"]) -> float:
    radius = _cycles_per_pixel(image.shape)
    return float(_power(image)[(radius > _NYQUIST / 4) & (radius <= _NYQUIST)].sum() / image.size)


def _power(image: Float64[ndarray, "h w"]) -> Float64[ndarray, "h w"]:
    """Power per pixel of a windowed image without its mean, at each frequency of its Fourier transform."""
    height_px, width_px = image.shape
    window = np.outer(np.hanning(height_px + 2)[1:-1], np.hanning(width_px + 2)[1:-1])
    centred = (image - np.average(image, weights=window)) * window
    return np.abs(np.fft.fft2(centred)) ** 2 / np.square(window).sum()


def _cycles_per_pixel(shape: tuple[int, ...]) -> Float64[ndarray, "h w"]:
    height_px, width_px = shape
    return np.hypot(np.fft.fftfreq(height_px)[:, None], np.fft.fftfreq(width_px)[None])


SPECTRUM = Metric(
    name="spectrum",
    label="spectrum",
    measure=_spectrum,
    protocol="BT.601 Y of the rounded 8-bit image, border = scale; mean absolute difference of radial power spectra",
    is_higher_better=False,
    kind="perceptual",
    smallest_side_px=_SMALLEST_SIDE_PX,
    decimals=3,
    unit="dB",
)

"""NIQE: how far the local contrast statistics of an image are from those of pristine photos, without a reference.

The model is fitted on photos that the user gives (`niqe:FOLDER`), as the method's authors fitted theirs; numbers of two
fits are not comparable, so the metric's name carries the hash of the photos.

Own code: neither piq nor torchmetrics has it.

References:
    Mittal et al. 2013, Making a "completely blind" image quality analyzer, IEEE SPL 20(3).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.metrics.metric import Metric
from pipeline.metrics.pixels import to_y
from shards.degradation.bicubic import downscale_taps
from shards.errors import InputError
from shards.format.photos import DecodeError, decode_photo, list_photos, read_file
from shards.format.storage import parse_local_path

_BLOCK_PX = 96
_SHARPNESS = 0.75  # of the sharpest block: blurred blocks of pristine photos are not fitted
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_MAX_PIXELS = 150_000_000
_MIN_BLOCKS = 100
_SHAPES = np.arange(0.2, 10.001, 0.001)
_LOG_GAMMA = np.vectorize(math.lgamma)


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of the features of blocks."""

    mean: Float64[ndarray, " features"]
    covariance: Float64[ndarray, "features features"]


@functools.lru_cache(maxsize=2)
def fit(files: tuple[Path, ...]) -> Gaussian:
    """Fit the features of the sharp blocks of pristine photos.

    Raises:
        InputError: A photo cannot be read, or there are too few sharp blocks.
    """
    blocks = np.concatenate([block_features(to_y(_read(path)[1]), sharp_only=True) for path in files])
    blocks = blocks[np.isfinite(blocks).all(axis=1)]
    if len(blocks) < _MIN_BLOCKS:
        raise InputError(
            f"niqe needs at least {_MIN_BLOCKS} sharp blocks of {_BLOCK_PX} px to fit on; the {len(files)} photos have "
            f"{len(blocks)}; give more or larger photos"
        )
    return Gaussian(blocks.mean(axis=0), np.cov(blocks, rowvar=False))


def distance(image: UInt8[ndarray, "h w 3"], pristine: Gaussian) -> float:
    """Return NIQE of an image; NaN for one without any contrast."""
    blocks = block_features(to_y(image), sharp_only=False)
    blocks = blocks[np.isfinite(blocks).all(axis=1)]
    if not len(blocks):
        return math.nan
    covariance = np.cov(blocks, rowvar=False) if len(blocks) > 1 else np.zeros_like(pristine.covariance)
    difference = blocks.mean(axis=0) - pristine.mean
    inverse = np.linalg.pinv((covariance + pristine.covariance) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def block_features(luma: Float64[ndarray, "h w"], *, sharp_only: bool) -> Float64[ndarray, "blocks features"]:
    """Return 36 features per block of 96 px: 18 at full size and 18 of the same block at half size."""
    rows, columns = (side // _BLOCK_PX for side in luma.shape)
    plane = np.rint(luma)[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    features: list[ndarray] = []
    is_sharp = np.ones(rows * columns, bool)
    for block_px in (_BLOCK_PX, _BLOCK_PX // 2):
        normalised, deviation = _normalise(plane)
        if sharp_only and block_px == _BLOCK_PX:
            sharpness = _blocks(deviation, block_px).mean(axis=(1, 2))
            is_sharp = sharpness > _SHARPNESS * sharpness.max()
        features.append(np.array([_of_block(block) for block in _blocks(normalised, block_px)[is_sharp]]))
        plane = _halve(plane)
    return np.concatenate(features, axis=1)


def _blocks(plane: Float64[ndarray, "h w"], block_px: int) -> Float64[ndarray, "blocks side side"]:
    rows, columns = (side // block_px for side in plane.shape)
    grid = plane.reshape(rows, block_px, columns, block_px).swapaxes(1, 2)
    return grid.reshape(rows * columns, block_px, block_px)


def _normalise(plane: Float64[ndarray, "h w"]) -> tuple[Float64[ndarray, "h w"], Float64[ndarray, "h w"]]:
    """Return the plane minus its local mean, over its local deviation, and that deviation (7x7 Gaussian window)."""
    offsets = np.arange(-3, 4)
    weights = np.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()

    def local(values: ndarray) -> ndarray:
        padded = np.pad(values, 3, mode="edge")
        rows = sliding_window_view(padded, 7, axis=0) @ weights
        return sliding_window_view(rows, 7, axis=1) @ weights

    mean = local(plane)
    deviation = np.sqrt(np.abs(local(plane * plane) - mean * mean))
    return (plane - mean) / (deviation + 1), deviation


def _of_block(block: Float64[ndarray, "side side"]) -> list[float]:
    """Return 18 features: the distribution of values, and of their products with neighbours in four directions."""
    shape, left, right = _fit_asymmetric(block.ravel())
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _fit_asymmetric((block * np.roll(block, shift, axis=(0, 1))).ravel())
        mean = (right - left) * math.exp(math.lgamma(2 / shape) - math.lgamma(1 / shape))
        features += [shape, mean, left, right]
    return features


@functools.cache
def _ratios() -> Float64[ndarray, " shapes"]:
    """Squared mean absolute value over mean square of a generalised Gaussian, for each shape of the grid."""
    one, two, three = (_LOG_GAMMA(k / _SHAPES) for k in (1, 2, 3))
    return np.exp(2 * two - one - three)


def _fit_asymmetric(values: Float64[ndarray, " n"]) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian by moments: its shape, and its left and right scales; NaN where undefined.

    References:
        Lasmar et al. 2009, Multiscale skewed heavy tailed model for texture analysis.
    """
    negative, positive = values[values < 0], values[values > 0]
    if not (len(negative) and len(positive)):
        return 1.0, math.nan, math.nan
    left, right = (math.sqrt(np.mean(np.square(side))) for side in (negative, positive))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(np.square(values))
    symmetric = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin(np.square(_ratios() - symmetric))])
    scale = math.exp((math.lgamma(1 / shape) - math.lgamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _halve(plane: Float64[ndarray, "h w"]) -> Float64[ndarray, "h2 w2"]:
    """Halve a plane as MATLAB's antialiased bicubic does; unrounded."""
    taps = downscale_taps(2)
    before, after = -taps[0][0], taps[-1][0] - 1
    for _ in range(2):
        padded = np.pad(plane, ((before, after), (0, 0)), mode="symmetric")
        last = before + len(plane)
        plane = np.asarray(sum(weight * padded[before + at : last + at : 2] for at, weight in taps)).T
    return plane


def _read(path: Path) -> tuple[bytes, UInt8[ndarray, "h w 3"]]:
    """Return the bytes of a photo's file, and its pixels."""
    try:
        data = read_file(path, max_pixels=_MAX_PIXELS)
        return data, decode_photo(data, max_pixels=_MAX_PIXELS)
    except DecodeError as error:
        raise InputError(f"niqe: {path} cannot be used: {error.detail}; repair it, or remove it") from error


def _configure(argument: str) -> Metric:
    folder = parse_local_path(argument)
    if not folder.is_dir():
        raise InputError(f"niqe:{argument}: no such folder; give one with pristine photos")
    files = tuple(sorted(list_photos(folder, recursive=True).photos))
    if not files:
        raise InputError(f"niqe:{argument}: the folder holds no photos to fit on")
    return _niqe(files)


def _niqe(files: Sequence[Path]) -> Metric:
    """Return the metric fitted on some files; without files it is listed as not computed."""
    # Decoded here too, so that a bad photo is refused before any work.
    hashes = sorted(hashlib.sha256(_read(path)[0]).hexdigest() for path in files)
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()[:8]
    name = f"niqe-{digest}" if files else "niqe"

    def measure(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        return distance(sr, fit(tuple(files)))

    def missing() -> str | None:
        return None if files else "photos to fit on, from any folder of pristine photos: write niqe:FOLDER"

    return Metric(
        name=name,
        label=name.replace("niqe", "NIQE"),
        measure=measure,
        protocol="BT.601 Y of the rounded 8-bit image, whole image; fitted on the given photos, not on the authors'",
        is_higher_better=False,
        kind="perceptual",
        needs_reference=False,
        weights="fitted on the photos of niqe:FOLDER",
        smallest_side_px=_BLOCK_PX,
        decimals=3,
        missing=missing,
        configure=_configure,
    )


NIQE = _niqe(())

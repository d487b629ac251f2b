"""Metrics that a library computes, or that are our own, against a second implementation."""

import numpy as np
import piq
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from pipeline.metrics import METRICS
from pipeline.metrics.pixels import to_y


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    gt = np.clip(ndimage.gaussian_filter(random.standard_normal((212, 196, 3)) * 400, (2, 2, 0)) + 128, 0, 255)
    sr = np.clip(ndimage.gaussian_filter(gt, (1, 1, 0)) + random.standard_normal(gt.shape) * 4, 0, 255)
    return sr.astype(np.uint8), gt.astype(np.uint8)


def yiq(image: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    return image.astype(np.float64) @ matrix.T


def halved(plane: np.ndarray) -> np.ndarray:
    height, width = (side - side % 2 for side in plane.shape)
    return plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def test_gmsd_equals_its_definition_in_numpy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    def gradient(image: np.ndarray) -> np.ndarray:
        plane = halved(yiq(image / 255.0)[..., 0])
        kernel = np.array([[1, 0, -1]] * 3) / 3
        return np.hypot(*(ndimage.convolve(plane, each, mode="constant") for each in (kernel, kernel.T)))

    ours, theirs = map(gradient, pair)
    constant = 170 / 255**2
    similarity = (2 * ours * theirs + constant) / (ours**2 + theirs**2 + constant)
    assert METRICS["gmsd"](*pair, 4) == pytest.approx(similarity.std(), abs=2e-5)


def haar(plane: np.ndarray, level: int) -> np.ndarray:
    """The wavelet of a level along the rows' direction, on windows that begin `size / 2 - 1` px before each pixel."""
    size = 2**level
    kernel = np.full((size, size), 2.0**-level)
    kernel[size // 2 :] *= -1
    padded = np.pad(plane, (size // 2 - 1, size // 2))
    return np.einsum("ijkl,kl->ij", sliding_window_view(padded, (size, size)), kernel)


def test_haarpsi_equals_its_definition_in_numpy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    luma, *_ = zip(*([halved(plane) for plane in np.moveaxis(yiq(image), 2, 0)] for image in pair), strict=True)
    colours = [[halved(plane) for plane in np.moveaxis(yiq(image)[..., 1:], 2, 0)] for image in pair]
    similarities, weights = [], []

    def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (2 * first * second + 30) / (first**2 + second**2 + 30)

    for turn in (lambda plane: plane, np.transpose):
        levels = [[np.abs(turn(haar(turn(plane), level))) for plane in luma] for level in (1, 2, 3)]
        similarities.append(np.mean([similarity(*levels[0]), similarity(*levels[1])], axis=0))
        weights.append(np.maximum(*levels[2]))
    averaged = [
        [np.abs(sliding_window_view(np.pad(plane, (0, 1)), (2, 2)).mean((2, 3))) for plane in image]
        for image in colours
    ]
    similarities.append(np.mean([similarity(*planes) for planes in zip(*averaged, strict=True)], axis=0))
    weights.append(np.mean(weights, axis=0))
    squashed = 1 / (1 + np.exp(-4.2 * np.array(similarities)))
    score = (squashed * np.array(weights)).sum() / np.array(weights).sum()
    expected = (np.log(score / (1 - score)) / 4.2) ** 2
    assert METRICS["haarpsi"](*pair, 4) == pytest.approx(expected, abs=2e-5)


def similarity_terms(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and contrast-structure of SSIM where the 11x11 window lies inside the image."""

    def local(plane: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(plane, 1.5, radius=5)[5:-5, 5:-5]

    mean_x, mean_y = local(x), local(y)
    variance_x, variance_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 6.5025) / (mean_x**2 + mean_y**2 + 6.5025)
    return luminance, (2 * covariance + 58.5225) / (variance_x + variance_y + 58.5225)


@pytest.mark.parametrize("border_px", [0, 4])
def test_ms_ssim_equals_its_definition_in_numpy(pair: tuple[np.ndarray, np.ndarray], border_px: int) -> None:
    inner = slice(border_px, -border_px or None)
    x, y = (to_y(image)[inner, inner] for image in pair)
    expected = 1.0
    for exponent in (0.0448, 0.2856, 0.3001, 0.2363):
        expected *= similarity_terms(x, y)[1].mean() ** exponent
        x, y = halved(x), halved(y)
    luminance, structure = similarity_terms(x, y)
    expected *= (luminance * structure).mean() ** 0.1333
    assert METRICS["ms_ssim"](*pair, border_px) == pytest.approx(expected, abs=1e-9)


def test_ssim_and_ms_ssim_equal_piqs_where_no_halved_side_is_odd(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, gt = (image[:192, :176] for image in pair)
    x, y = (torch.from_numpy(to_y(image) / 255)[None, None] for image in (sr, gt))
    assert METRICS["ssim_y"](sr, gt, 0) == pytest.approx(piq.ssim(x, y, downsample=False).item(), abs=1e-12)
    assert METRICS["ms_ssim"](sr, gt, 0) == pytest.approx(piq.multi_scale_ssim(x, y).item(), abs=1e-12)

import math

import numpy as np
import pytest

from pipeline.metrics import METRICS
from pipeline.metrics.pixels import to_y
from shards.errors import InputError

psnr_y, psnr_rgb, ssim_y = METRICS["psnr_y"], METRICS["psnr_rgb"], METRICS["ssim_y"]

GRAY = np.full((24, 30, 3), 100, dtype=np.uint8)


def test_to_y_of_black_and_white_is_the_limited_range() -> None:
    image = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    np.testing.assert_allclose(to_y(image), [[16, 235]])


def test_psnr_of_one_gray_level_is_48_13_db() -> None:
    assert psnr_rgb(GRAY, GRAY + np.uint8(1), 0) == pytest.approx(20 * math.log10(255))
    assert psnr_y(GRAY, GRAY + np.uint8(1), 4) == pytest.approx(20 * math.log10(255 / (219 / 255)))


def test_metrics_of_equal_images_are_perfect() -> None:
    assert psnr_y(GRAY, GRAY, 4) == math.inf
    assert ssim_y(GRAY, GRAY, 4) == pytest.approx(1.0)


def test_metrics_with_a_border_ignore_what_is_in_it() -> None:
    other = GRAY.copy()
    other[:4] = 0
    assert psnr_y(other, GRAY, 4) == math.inf
    assert psnr_y(other, GRAY, 3) < 30


@pytest.mark.parametrize(
    ("sr", "border_px", "text"),
    [
        (GRAY[:20], 0, "20x30"),
        (GRAY.astype(float), 0, "float64"),
        (GRAY, 12, "border of 12"),
        (GRAY, -1, "border of -1"),
        (GRAY, 8, "11 px per side"),
    ],
)
def test_metric_of_unfit_input_names_the_fault(sr: np.ndarray, border_px: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        ssim_y(sr, GRAY, border_px)

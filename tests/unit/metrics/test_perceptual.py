"""What every metric must do whatever it computes: know equal images, and grow worse with blur and with noise."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from harness import photo
from spoiled_photos import blurred, noisy

from pipeline.metrics import METRICS, Metric
from pipeline.metrics.spectrum import high_frequency_energy, radial_power_db
from shards.errors import InputError

FULL_REFERENCE = [metric for metric in METRICS if metric.needs_reference and metric.missing() is None]
SYMMETRIC = {"ssim_y", "psnr_y", "psnr_rgb", "ms_ssim", "haarpsi", "gmsd", "spectrum"}


@pytest.fixture(scope="module")
def gt() -> np.ndarray:
    return photo(5, 192, 200)


def loss(metric: Metric, sr: np.ndarray, gt: np.ndarray) -> float:
    return metric(sr, gt, 4) * (-1 if metric.is_higher_better else 1)


@pytest.mark.parametrize("metric", FULL_REFERENCE, ids=lambda metric: metric.name)
def test_metric_of_equal_images_is_its_best_value(metric: Metric, gt: np.ndarray) -> None:
    best = math.inf if metric.name.startswith("psnr") else 1.0 if metric.is_higher_better else 0.0
    assert metric(gt, gt, 4) == pytest.approx(best, abs=1e-6)


# Blur takes the stripes away and makes none wrong.
@pytest.mark.parametrize(
    "metric", [metric for metric in FULL_REFERENCE if metric.name != "texture-wrong"], ids=lambda metric: metric.name
)
def test_metric_grows_worse_with_blur_and_with_noise(metric: Metric, gt: np.ndarray) -> None:
    blur = [loss(metric, blurred(gt, sigma_px), gt) for sigma_px in (0.5, 1.0, 2.0)]
    noise = [loss(metric, noisy(gt, sigma_255), gt) for sigma_255 in (4, 12, 36)]
    assert blur == sorted(blur)
    assert noise == sorted(noise)
    assert blur[0] < blur[-1]
    assert noise[0] < noise[-1]


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_metric_is_symmetric(name: str, gt: np.ndarray) -> None:
    other = noisy(blurred(gt, 1.0), 6)
    assert METRICS[name](other, gt, 4) == pytest.approx(METRICS[name](gt, other, 4), rel=1e-6)


@pytest.mark.parametrize("metric", FULL_REFERENCE, ids=lambda metric: metric.name)
def test_metric_at_its_smallest_size_is_a_number_and_below_it_is_refused(metric: Metric) -> None:
    side_px = max(metric.smallest_side_px, 2)
    image = photo(7, side_px + 8, side_px + 8)
    assert math.isfinite(metric(noisy(image, 9), image, 4))
    small = image[: metric.smallest_side_px + 7]
    with pytest.raises(InputError, match=r"px per side without the border|cannot cut a border"):
        metric(small, small, 4)


def test_spectrum_of_white_noise_is_flat_at_its_variance() -> None:
    noise = np.random.RandomState(0).standard_normal((256, 200)) * 10
    power_db = radial_power_db(noise)
    assert power_db.shape == (100,)
    assert power_db[:50].mean() == pytest.approx(20.0, abs=0.3)
    assert power_db[50:].mean() == pytest.approx(20.0, abs=0.1)


def wave(cycles_per_pixel: float, amplitude_255: float) -> np.ndarray:
    """A gray image of 128 with a wave in each row."""
    columns = np.arange(200)
    gray = 128 + amplitude_255 * np.sin(2 * np.pi * cycles_per_pixel * columns)
    return np.rint(np.tile(gray[None, :, None], (160, 1, 3))).astype(np.uint8)


def test_high_frequency_energy_is_the_squared_ratio_of_amplitudes_above_a_quarter_of_nyquist() -> None:
    coarse = wave(0.05, 60).astype(int) - 128

    def image(cycles_per_pixel: float, amplitude_255: float) -> np.ndarray:
        return (wave(cycles_per_pixel, amplitude_255) + coarse).astype(np.uint8)

    for cycles_per_pixel in (0.1437, 0.2613, 0.4071):  # no fractions, whose rounding repeats
        gt = image(cycles_per_pixel, 40)
        assert high_frequency_energy(gt, gt, 4) == 1.0
        assert high_frequency_energy(image(cycles_per_pixel, 20), gt, 4) == pytest.approx(0.25, rel=0.01)
        assert high_frequency_energy(image(cycles_per_pixel, 60), gt, 4) == pytest.approx(2.25, rel=0.01)
        assert high_frequency_energy(image(0.11, 40), gt, 4) < 0.01  # below the quarter, 0.125


def test_high_frequency_energy_over_a_flat_ground_truth_is_not_defined() -> None:
    flat = np.full((64, 64, 3), 77, np.uint8)
    assert math.isnan(high_frequency_energy(photo(1, 64, 64), flat, 4))


def test_libraries_of_metrics_are_imported_at_their_first_use_only() -> None:
    code = (
        "import sys, jobs.evaluate, pipeline.metrics, pipeline.run.session, pipeline.inference.promotion;"
        "print([name for name in ('piq', 'torchmetrics') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[]\n", done.stderr

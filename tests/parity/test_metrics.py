"""Against scikit-image, which computes both independently."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.metrics import METRICS
from pipeline.metrics.pixels import to_y

psnr_y, psnr_rgb, ssim_y = METRICS["psnr_y"], METRICS["psnr_rgb"], METRICS["ssim_y"]


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    gt = np.clip(np.cumsum(random.standard_normal((40, 52, 3)) * 9, axis=1) + 128, 0, 255).astype(np.uint8)
    sr = np.clip(gt + random.standard_normal(gt.shape) * 12, 0, 255).astype(np.uint8)
    return sr, gt


@pytest.mark.parametrize("border_px", [0, 4])
def test_psnr_equals_scikit_image(pair: tuple[np.ndarray, np.ndarray], border_px: int) -> None:
    sr, gt = pair
    inner = slice(border_px, -border_px or None)
    y = [to_y(image)[inner, inner] for image in (gt, sr)]
    assert psnr_y(sr, gt, border_px) == pytest.approx(peak_signal_noise_ratio(*y, data_range=255), abs=1e-9)
    rgb = [image[inner, inner] for image in (gt, sr)]
    assert psnr_rgb(sr, gt, border_px) == pytest.approx(peak_signal_noise_ratio(*rgb, data_range=255), abs=1e-9)


@pytest.mark.parametrize("border_px", [0, 4])
def test_ssim_equals_scikit_image_on_the_valid_region(pair: tuple[np.ndarray, np.ndarray], border_px: int) -> None:
    sr, gt = pair
    inner = slice(border_px, -border_px or None)
    _, picture = structural_similarity(
        to_y(sr)[inner, inner],
        to_y(gt)[inner, inner],
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim_y(sr, gt, border_px) == pytest.approx(picture[5:-5, 5:-5].mean(), abs=1e-9)

"""Losses of frequencies and of structure, against closed forms and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import piq
import pytest
import torch
from torch import Tensor

from pipeline.losses import IMAGE_LOSSES


def image(seed: int, side_px: int = 48) -> Tensor:
    return torch.rand(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def test_frequency_loss_of_a_wave_is_its_two_peaks() -> None:
    loss, side_px, amplitude = IMAGE_LOSSES["frequency"].build(), 32, 0.2
    wave = amplitude * torch.cos(2 * math.pi * 3 * torch.arange(side_px) / side_px)
    difference = wave.expand(1, 1, side_px, side_px)
    # Two coefficients of amplitude / 2 times the number of pixels, over its root; a mean over real and imaginary parts.
    expected = 2 * (amplitude / 2) * side_px / (2 * side_px**2)
    assert loss(image(0, side_px)[:1, :1] + difference, image(0, side_px)[:1, :1]).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_frequency_loss_equals_numpy_s_transform_and_does_not_depend_on_the_crop_for_noise() -> None:
    loss = IMAGE_LOSSES["frequency"].build()
    sr, gt = image(1), image(2)
    transform = np.fft.fft2((sr - gt).double().numpy(), norm="ortho")
    expected = (np.abs(transform.real).mean() + np.abs(transform.imag).mean()) / 2
    assert loss(sr, gt).item() == pytest.approx(expected, rel=1e-5)
    assert loss(image(1, 96), image(2, 96)).item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("side_px", [176, 192])
def test_ms_ssim_loss_equals_another_implementation_at_five_scales(side_px: int) -> None:
    gt = image(3, side_px)
    sr = (gt + 0.2 * image(4, side_px)).clamp(0, 1)
    expected = 1 - piq.multi_scale_ssim(sr, gt, data_range=1.0)
    assert IMAGE_LOSSES["ms_ssim"].build()(sr, gt).item() == pytest.approx(expected.item(), rel=1e-3)


def test_ms_ssim_loss_of_a_small_crop_has_the_scales_that_fit() -> None:
    loss, gt = IMAGE_LOSSES["ms_ssim"].build(), image(5, 12)
    sr = (gt + 0.2 * image(6, 12)).clamp(0, 1)
    # 12 px hold one window alone: plain SSIM.
    assert loss(sr, gt).item() == pytest.approx(1 - piq.ssim(sr, gt, downsample=False).item(), rel=1e-4)
    with pytest.raises(ValueError, match="crops of at least 11 px; got 10"):
        loss(sr[..., :10, :10], gt[..., :10, :10])


@pytest.mark.parametrize("name", ["frequency", "ms_ssim"])
def test_loss_is_zero_on_equal_images_grows_with_noise_and_has_a_finite_gradient(name: str) -> None:
    loss, gt = IMAGE_LOSSES[name].build(), image(7)
    equal, some, more = (loss(gt + amount * image(8), gt).item() for amount in (0.0, 0.1, 0.3))
    assert equal == pytest.approx(0.0, abs=1e-6)
    assert equal < some < more
    for sr in (gt.clone(), 1 - gt):  # the opposite structure too
        sr.requires_grad_()
        loss(sr, gt).backward()
        assert sr.grad is not None
        assert sr.grad.isfinite().all()
    with pytest.raises(ValueError, match="one shape"):
        loss(gt, gt[:, :1])

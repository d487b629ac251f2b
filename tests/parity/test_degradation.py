"""Against the reference's outputs, `F.interpolate`, MATLAB's pixels and Pillow's encoder.

`golden/degradation.npz` holds the reference's kernels, and the corners of its JPEG and unsharp mask of `crop`, which is
`butterfly[0:128, 0:112]` of Set5; `crop_lq_x4` is MATLAB's own x4 reduction of that place.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.degrade.kernels import blur_kernels
from pipeline.degrade.operations.blur import blur
from pipeline.degrade.operations.jpeg import jpeg
from pipeline.degrade.operations.resize import num_taps, resize, resize_matrices
from pipeline.degrade.sharpen import sharpen
from shards.degradation import bicubic
from shards.degradation.operations.blur import Blur
from shards.degradation.operations.resize import RESIZE_MODES
from shards.degradation.recipe import SharpenRecipe

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "degradation.npz")
CROP = torch.from_numpy(GOLDEN["crop"]).permute(2, 0, 1)[None].double() / 255
BLURS = {
    "gauss_21_1.5_0.6_0.7": Blur("gaussian", 21, 1.5, 0.6, 0.7),
    "gengauss_21_1.5_0.6_0.7_beta1.7": Blur("generalized", 21, 1.5, 0.6, 0.7, 1.7),
    "plateau_21_1.5_0.6_0.7_beta1.3": Blur("plateau", 21, 1.5, 0.6, 0.7, 1.3),
    "gauss_7_0.5_0.5_0.0": Blur("gaussian", 7, 0.5, 0.5, 0.0),
    "gengauss_7_0.5_0.5_0.0_beta1.7": Blur("generalized", 7, 0.5, 0.5, 0.0, 1.7),
    "plateau_7_0.5_0.5_0.0_beta1.3": Blur("plateau", 7, 0.5, 0.5, 0.0, 1.3),
    "sinc_21_1.1": Blur("sinc", 21, cutoff_rad=1.1),
    "sinc_7_0.9": Blur("sinc", 7, cutoff_rad=0.9),
}


@pytest.mark.parametrize("name", BLURS)
def test_kernel_of_reference_parameters_equals_the_reference(name: str) -> None:
    expected = GOLDEN[name]
    margin = (21 - expected.shape[0]) // 2
    expected = np.pad(expected, margin)
    # A batch, so that a mix-up between samples shows.
    kernels = blur_kernels([Blur("none"), BLURS[name]])
    np.testing.assert_allclose(kernels[1].numpy(), expected, atol=1e-6)
    assert kernels[0, 10, 10] == 1


def test_jpeg_reference_mode_equals_the_reference_simulation() -> None:
    image = torch.zeros(2, 3, 128, 128, dtype=torch.float64)
    image[0, :, :, :112], image[1, :, :, :112] = CROP[0], CROP[0].flip(-1)
    ours = jpeg(image, torch.tensor([35.0, 82.0]), torch.tensor([128, 128]), mode="reference")[..., :64, :64]
    error = (ours - torch.from_numpy(GOLDEN["diffjpeg_q35_q82"])).abs() * 255
    assert (error <= 1).double().mean() >= 0.99
    assert error.mean() < 0.01


def test_sharpen_equals_the_reference_unsharp_mask() -> None:
    ours = sharpen(CROP, SharpenRecipe(50, 0.5, 10.0))[..., :64, :64]
    assert (ours - torch.from_numpy(GOLDEN["usm_r50_w0.5_t10"])).abs().max() < 0.01 / 255


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
@pytest.mark.parametrize("side_px", [112, 101])
def test_jpeg_faithful_mode_is_at_most_half_as_far_from_pillow(quality: int, side_px: int) -> None:
    pixels = GOLDEN["crop"][:side_px, :side_px]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    expected = np.asarray(Image.open(buffer)).astype(float)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
    # Padded with a value that would show, had it been read.
    image = F.pad(image, (0, 9, 0, 9), value=0.5)
    error = {}
    for mode in ("reference", "faithful"):
        ours = jpeg(image, torch.tensor([float(quality)]), torch.tensor([side_px]), mode=mode)
        ours = ours[0, :, :side_px, :side_px].permute(1, 2, 0).numpy() * 255
        error[mode] = np.abs(ours - expected).mean()
    assert error["faithful"] < 0.5 * error["reference"]
    assert error["faithful"] < 0.6


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.15, 0.37, 0.8, 1.0, 1.31, 1.5])
@pytest.mark.parametrize("by_size", [False, True])
def test_resize_equals_interpolate_at_any_factor(mode: str, factor: float, by_size: bool) -> None:
    image = CROP[:, :, :100, :100]
    size_px = int(100 * factor)
    step = 100 / size_px if by_size else 1 / factor
    scaling = {"size": size_px} if by_size or mode == "area" else {"scale_factor": factor}
    expected = F.interpolate(image, mode=mode, **scaling)
    # A larger neighbour in the batch pads this one; what lies beyond it is not part of the image.
    shape_px = (size_px + 7, 110)
    padded = F.pad(image, (0, 10, 0, 10), value=9.0).repeat(2, 1, 1, 1)
    matrices = resize_matrices(
        torch.tensor([RESIZE_MODES.index(mode), 3]),
        torch.tensor([100, 110]),
        torch.tensor([size_px, size_px + 7]),
        torch.tensor([step, 110 / (size_px + 7)], dtype=torch.float64),
        shape_px=shape_px,
        taps=num_taps("matlab_bicubic", 110, size_px, 110 / (size_px + 7)) + 1,
    )
    ours = resize(padded, matrices)[:1]
    # `interpolate` keeps its coordinates in float32 when it is given a factor.
    assert (ours[..., :size_px, :size_px] - expected).abs().max() < 1e-4
    assert ours[..., size_px:, :].abs().max() == 0


def test_blur_equals_a_direct_correlation_with_mirrored_borders() -> None:
    kernels = blur_kernels([Blur("gaussian", 21, 2.5, 0.7, 0.6), Blur("sinc", 13, cutoff_rad=1.4)])
    image = torch.stack([CROP[0, :, :90, :90], CROP[0, :, 20:110, 10:100]])
    image[1, :, 70:] = image[1, :, :, 70:] = 5.0
    ours = blur(image, kernels, torch.tensor([90, 70]))
    for sample, size_px in enumerate((90, 70)):
        own = F.pad(image[sample : sample + 1, :, :size_px, :size_px], (10,) * 4, mode="reflect")
        expected = F.conv2d(own.transpose(0, 1), kernels[sample].view(1, 1, 21, 21)).transpose(0, 1)[0]
        assert (ours[sample, :, :size_px, :size_px] - expected).abs().max() < 1e-12


def test_downscale_by_four_equals_matlab() -> None:
    ours = bicubic.downscale(GOLDEN["crop"], 4)[:30, :26]
    np.testing.assert_array_equal(ours, GOLDEN["crop_lq_x4"])

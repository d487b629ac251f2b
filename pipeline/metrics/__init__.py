"""Metrics of image quality, by name. A metric is one file with one `Metric`, and one line in `METRICS`.

    METRICS["psnr_y"](sr, gt, border_px=4)      # dB

All take 8-bit RGB images as NumPy arrays of shape (height, width, 3).
"""

from pipeline.metrics.metric import Metric
from pipeline.metrics.psnr_rgb import PSNR_RGB
from pipeline.metrics.psnr_y import PSNR_Y
from pipeline.metrics.ssim_y import SSIM_Y
from pipeline.registry import Registry

METRICS: Registry[Metric] = Registry("metric", [PSNR_Y, SSIM_Y, PSNR_RGB])

__all__ = ["METRICS", "Metric"]

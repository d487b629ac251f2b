"""Full-reference metrics, with the conventions of the super-resolution papers in one place.

All take rounded 8-bit RGB images (H, W, 3) as NumPy arrays. `*_y` work on BT.601 luma.
"""

from pipeline.metrics.psnr import psnr_rgb, psnr_y
from pipeline.metrics.ssim import ssim_y

__all__ = ["psnr_rgb", "psnr_y", "ssim_y"]

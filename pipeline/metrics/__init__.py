"""Metrics of image quality, by name. A metric is one file with one `Metric`, and one line in `METRICS`.

    METRICS["psnr_y"](sr, gt, border_px=4)      # dB

All take 8-bit RGB images as NumPy arrays of shape (height, width, 3). The libraries that compute some of them are
imported at their first use. `pipeline.metrics.choice` finds metrics as users name them.
"""

from pipeline.metrics.dists import DISTS
from pipeline.metrics.features_efficientnet import FEATURES_EFFICIENTNET
from pipeline.metrics.gmsd import GMSD
from pipeline.metrics.haarpsi import HAARPSI
from pipeline.metrics.lpips import LPIPS, LPIPS_VGG
from pipeline.metrics.metric import Metric
from pipeline.metrics.ms_ssim import MS_SSIM
from pipeline.metrics.niqe import NIQE
from pipeline.metrics.psnr_rgb import PSNR_RGB
from pipeline.metrics.psnr_y import PSNR_Y
from pipeline.metrics.spectrum import SPECTRUM
from pipeline.metrics.ssim_y import SSIM_Y
from pipeline.metrics.texture import TEXTURE_DISTANCE, TEXTURE_WRONG
from pipeline.registry import Registry

METRICS: Registry[Metric] = Registry(
    "metric",
    [
        *(PSNR_Y, SSIM_Y, PSNR_RGB, MS_SSIM),
        *(LPIPS, LPIPS_VGG, DISTS, HAARPSI, GMSD, SPECTRUM, NIQE, FEATURES_EFFICIENTNET),
        *(TEXTURE_DISTANCE, TEXTURE_WRONG),
    ],
)

__all__ = ["METRICS", "Metric"]

"""Distance of EfficientNet-Lite2 features: like LPIPS, but not calibrated on human judgements, so not LPIPS.

For clusters without downloads: its ImageNet weights come as a Python package. Deep features agree with human judgements
far better than PSNR or SSIM whichever network they come from, calibrated or not (Zhang et al. 2018).

References:
    After Zhang et al. 2018, arXiv:1801.03924, without the calibrated linear layers.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, to_tensor
from pipeline.pretrained.efficientnet import MEAN, STD, VARIANTS, EfficientNetLite, load_efficientnet

_VARIANT = "efficientnet-lite2"
# The last stage of each stride from 2 to 16 px.
_STAGES = (0, 1, 2, 4)


@functools.lru_cache(maxsize=1)
def _network(device: torch.device) -> EfficientNetLite:
    return load_efficientnet(_VARIANT, max(_STAGES) + 1).to(device)


def _features(image: Float[Tensor, "1 3 h w"]) -> list[Float[Tensor, "1 c rows columns"]]:
    mean, std = (torch.tensor(values, device=image.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    stages = _network(image.device)((image - mean) / std)
    return [F.normalize(stages[index], dim=1) for index in _STAGES]


def _distance(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
    with full_precision():
        pairs = zip(_features(to_tensor(sr)), _features(to_tensor(gt)), strict=True)
        return float(torch.stack([(ours - theirs).square().sum(dim=1).mean() for ours, theirs in pairs]).mean())


FEATURES_EFFICIENTNET = Metric(
    name="features-efficientnet",
    label="features-EfficientNet",
    measure=_distance,
    protocol=(
        "RGB of the rounded 8-bit image, whole image; squared distance of unit-length EfficientNet-Lite2 features at "
        "strides 2, 4, 8 and 16, averaged over positions and layers; not LPIPS"
    ),
    is_higher_better=False,
    kind="perceptual",
    weights=f"the package {VARIANTS[_VARIANT].package} (extra `demo`)",
    smallest_side_px=32,
    missing=VARIANTS[_VARIANT].missing,
)

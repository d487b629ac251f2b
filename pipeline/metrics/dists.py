"""DISTS: structure and texture of VGG16 features; tolerant of resampled texture, which GANs produce.

The network and its calibrated channel weights come from torchmetrics, the ImageNet weights from torchvision.

References:
    Ding et al. 2020, arXiv:2004.07728.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from pipeline.metrics.backbones import VGG16, Distance, learned_metric, substituted


def _dists(features: nn.Sequential, device: torch.device) -> Distance:
    from torchmetrics.functional.image import dists

    with substituted(dists, "vgg16", lambda **_: SimpleNamespace(features=features)):
        return dists.DISTSNetwork().to(device).requires_grad_(False)


DISTS = learned_metric("dists", "DISTS", VGG16, _dists, ", not resized;")

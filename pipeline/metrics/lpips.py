"""LPIPS 0.1: distance of learned features, calibrated on human judgements of similarity; on AlexNet and on VGG16.

The network and its calibrated linear layers come from torchmetrics, the ImageNet weights from torchvision.

References:
    Zhang et al. 2018, arXiv:1801.03924.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import nn

from pipeline.metrics.backbones import ALEXNET, VGG16, Distance, learned_metric, substituted


def _lpips(net: Literal["alex", "vgg"], features: nn.Sequential, device: torch.device) -> Distance:
    from torchmetrics.functional.image import lpips

    with substituted(lpips, "_get_tv_model_features", lambda *_: features):
        network = lpips._LPIPS(net=net).to(device)
    return functools.partial(network, normalize=True)


LPIPS = learned_metric("lpips", "LPIPS", ALEXNET, functools.partial(_lpips, "alex"), "; LPIPS 0.1 on")
LPIPS_VGG = learned_metric("lpips-vgg", "LPIPS-VGG", VGG16, functools.partial(_lpips, "vgg"), "; LPIPS 0.1 on")

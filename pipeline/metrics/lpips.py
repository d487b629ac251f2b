"""LPIPS 0.1: distance of learned features, calibrated on what people call similar; on AlexNet and on VGG16.

The network and its calibrated heads are torchmetrics'; the ImageNet weights below them are torchvision's.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import nn

from pipeline.metrics.backbones import ALEXNET, VGG16, Backbone, substituted, which_weights
from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, metric_device, to_tensor


@functools.lru_cache(maxsize=2)
def _network(net: str, backbone: Backbone, path: Path, device: torch.device) -> nn.Module:
    from torchmetrics.functional.image import lpips

    with substituted(lpips, "_get_tv_model_features", lambda *_: backbone.features(path)):
        return lpips._LPIPS(net=net).to(device)  # pyright: ignore[reportArgumentType]


def _lpips(name: str, label: str, net: str, backbone: Backbone, path: Path | None = None) -> Metric:
    def measure(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        network = _network(net, backbone, path or backbone.cached, metric_device())
        with full_precision():
            return float(network(to_tensor(sr), to_tensor(gt), normalize=True))

    return Metric(
        name=name,
        label=label,
        measure=measure,
        protocol=f"RGB of the rounded 8-bit image, whole image; LPIPS 0.1 on {which_weights(backbone, path)}",
        is_higher_better=False,
        kind="perceptual",
        source="Zhang et al. 2018, arXiv:1801.03924; torchmetrics",
        weights=f"{backbone.file} (torchvision), NAME:PATH for another path; the heads come with torchmetrics",
        uses_gpu=True,
        smallest_side_px=32,
        missing=backbone.missing,
        configure=lambda text: replace(_lpips(name, label, net, backbone, backbone.find(text)), missing=lambda: None),
    )


LPIPS = _lpips("lpips", "LPIPS", "alex", ALEXNET)
LPIPS_VGG = _lpips("lpips-vgg", "LPIPS-VGG", "vgg", VGG16)

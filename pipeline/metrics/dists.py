"""DISTS: structure and texture of VGG16 features; tolerant of texture that was resampled, as a GAN's is.

The network and its calibrated weights per channel are torchmetrics'; the ImageNet weights below them are torchvision's.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import nn

from pipeline.metrics.backbones import VGG16, substituted, which_weights
from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, metric_device, to_tensor


@functools.lru_cache(maxsize=1)
def _network(path: Path, device: torch.device) -> nn.Module:
    from torchmetrics.functional.image import dists

    with substituted(dists, "vgg16", lambda **_: SimpleNamespace(features=VGG16.features(path))):
        return dists.DISTSNetwork().to(device).requires_grad_(False)


def _dists(path: Path | None = None) -> Metric:
    def measure(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        network = _network(path or VGG16.cached, metric_device())
        with full_precision():
            return float(network(to_tensor(sr), to_tensor(gt)))

    return Metric(
        name="dists",
        label="DISTS",
        measure=measure,
        protocol=f"RGB of the rounded 8-bit image, whole image, not resized; {which_weights(VGG16, path)}",
        is_higher_better=False,
        kind="perceptual",
        source="Ding et al. 2020, arXiv:2004.07728; torchmetrics",
        weights=f"{VGG16.file} (torchvision), NAME:PATH for another path; its own come with torchmetrics",
        uses_gpu=True,
        smallest_side_px=32,
        missing=VGG16.missing,
        configure=lambda argument: replace(_dists(VGG16.find(argument)), missing=lambda: None),
    )


DISTS = _dists()

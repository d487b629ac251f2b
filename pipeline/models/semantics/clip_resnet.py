"""CLIP's modified ResNet, up to the layer in use and no further.

Guarantees: OpenAI's parameter names, so their weights load as they are; no layer behind the last one in use
is built. Up to layer 3, RN50 has 8,562,528 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_EXPANSION = 4


class _Bottleneck(nn.Module):
    """Three convolutions and a skip connection; average pools in place of strides."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * _EXPANSION
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, 4 * width, h / stride, w / stride)."""
        branch = F.relu(self.bn1(self.conv1(features)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(self._pool(branch)))
        skip = features if self.downsample is None else self.downsample(self._pool(features))
        return F.relu(branch + skip)

    def _pool(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, self.stride) if self.stride > 1 else features


class ClipResNet(nn.Module):
    """The visual tower of CLIP RN50 and its relatives without the attention pool.

    Args:
        num_blocks: Blocks in each of the layers in use, such as (3, 4, 6) for RN50 up to layer 3.
        width: Channels after the stem.

    References:
        Radford et al. 2021, CLIP, arXiv:2103.00020, Sec. 2.4; openai/CLIP, clip/model.py, ModifiedResNet.
    """

    def __init__(self, num_blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.num_layers = len(num_blocks)
        channels = width
        for index, count in enumerate(num_blocks):
            layer_width = width * 2**index
            strides = [2 if index else 1] + [1] * (count - 1)
            blocks = []
            for stride in strides:
                blocks.append(_Bottleneck(channels, layer_width, stride))
                channels = layer_width * _EXPANSION
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.channels = channels
        self.native_stride_px = 4 * 2 ** (self.num_layers - 1)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c rows columns"]:
        """Return the features of a normalised image, one cell per `native_stride_px`."""
        features = F.relu(self.bn1(self.conv1(image)))
        features = F.relu(self.bn2(self.conv2(features)))
        features = F.avg_pool2d(F.relu(self.bn3(self.conv3(features))), 2)
        for index in range(self.num_layers):
            features = self.get_submodule(f"layer{index + 1}")(features)
        return features

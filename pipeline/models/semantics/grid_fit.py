"""How the map of a layer comes onto the discriminator's grid of one cell per 16 px.

A map that is finer is averaged, one that is coarser is interpolated. Where neither cells nor grid divide the other, as
with patches of 14 px, the image is resized instead, so that cell and grid coincide. Zeros fill the channels up to what
the fusion blocks can divide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.models.grid import SEMANTIC_STRIDE_PX

# The fusion blocks split the channels into 32 groups and into blocks of 4, 16 or 64 pixels.
_CHANNEL_MULTIPLE = 64


@dataclass(frozen=True)
class GridFit:
    """The way of one layer's map.

    Attributes:
        channels: Channels of the map.
        stride_px: Pixels of the network's input per cell of the map.
    """

    channels: int
    stride_px: int

    @property
    def num_filled(self) -> int:
        """Channels of zeros behind the map's own."""
        return -self.channels % _CHANNEL_MULTIPLE

    @property
    def num_channels(self) -> int:
        """Channels of the map on the grid, those of zeros included."""
        return self.channels + self.num_filled

    @property
    def resizes_image(self) -> bool:
        """Whether the network sees the image resized."""
        return bool(SEMANTIC_STRIDE_PX % self.stride_px and self.stride_px % SEMANTIC_STRIDE_PX)

    @property
    def description(self) -> str:
        """For people, and for the identity of a feature cache."""
        way = "one cell per"
        if self.resizes_image:
            cells = f"{way} {self.stride_px} px of the image resized by {self.stride_px}/{SEMANTIC_STRIDE_PX}"
        elif self.stride_px == SEMANTIC_STRIDE_PX:
            cells = f"{way} {self.stride_px} px"
        else:
            change = "averaged" if self.stride_px < SEMANTIC_STRIDE_PX else "interpolated"
            cells = f"{way} {self.stride_px} px, {change} to {SEMANTIC_STRIDE_PX} px"
        filled = f" and {self.num_filled} of zeros" if self.num_filled else ""
        return f"{self.channels} channels{filled}, {cells}"

    def side_px(self, image_px: int) -> int:
        """Return the side of what the network sees of an image with a side of a multiple of 16 px."""
        return image_px // SEMANTIC_STRIDE_PX * self.stride_px if self.resizes_image else image_px

    def resize(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 seen_h seen_w"]:
        """Return what the network sees of an image."""
        if not self.resizes_image:
            return image
        size = [self.side_px(side) for side in image.shape[-2:]]
        return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)

    def place(
        self, features: Float[Tensor, "n c rows columns"], grid: tuple[int, int]
    ) -> Float[Tensor, "n filled grid_h grid_w"]:
        """Bring the map of a layer onto the grid and fill its channels."""
        if features.shape[-2:] != grid:
            factor = SEMANTIC_STRIDE_PX // self.stride_px
            if factor > 1:
                features = F.avg_pool2d(features, factor)
            else:
                features = F.interpolate(features, size=grid, mode="bilinear", align_corners=False)
        return F.pad(features, (0, 0, 0, 0, 0, self.num_filled)) if self.num_filled else features

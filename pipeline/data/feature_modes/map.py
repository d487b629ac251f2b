"""One feature for a whole sub-image, from which any crop on the grid is cut and turned. It approximates.

At the border of a crop the network has seen the pixels beyond it, where it would otherwise have padded; and a turned
map is not the map of a turned crop. docs/features.md has the size of both.
"""

from __future__ import annotations

import numpy as np

from pipeline.data.feature_modes.mode import FEATURE_MODES, FeatureMode
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.degradation.crops import Crop
from shards.format.records import SampleRecord
from shards.format.settings import ImageSettings


class Map(FeatureMode):
    """The sub-image up to its last whole cell, unturned."""

    name = "map"
    cell_px = SEMANTIC_STRIDE_PX
    orientations = (0,)

    def window_px(self, images: ImageSettings, crop_px: int) -> int:
        """See `FeatureMode`."""
        return images.sub_image_px // self.cell_px * self.cell_px

    def num_features(self, images: ImageSettings) -> int:
        """One."""
        return 1

    def window(self, record: SampleRecord, seed: str, window_px: int) -> Crop:
        """See `FeatureMode`; nothing is drawn."""
        return Crop(0, 0, window_px, 0)

    def variant(self, epoch: int, num_features: int) -> int:
        """Every epoch has new crops, as online."""
        return epoch

    def number(self, variant: int) -> int:
        """See `FeatureMode`."""
        return 0

    def cut(self, feature: np.ndarray, crop: Crop) -> np.ndarray:
        """See `FeatureMode`."""
        return crop.scaled(self.cell_px).apply(feature.transpose(1, 2, 0)).transpose(2, 0, 1)


FEATURE_MODES.add(Map())

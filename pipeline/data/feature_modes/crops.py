"""A feature for each crop: equal to the extractor's output within the codec's bound, K of them per sub-image."""

from __future__ import annotations

import numpy as np

from pipeline.data.feature_modes.mode import FEATURE_MODES, FeatureMode, draw_sample_crop
from shards.degradation.crops import Crop
from shards.format.records import SampleRecord
from shards.format.settings import ALL_ORIENTATIONS, ImageSettings


class Crops(FeatureMode):
    """The very pixels that training draws for a variant, cut and turned."""

    name = "crops"
    cell_px = 1
    orientations = ALL_ORIENTATIONS

    def window_px(self, images: ImageSettings, crop_px: int) -> int:
        """See `FeatureMode`."""
        return crop_px

    def num_features(self, images: ImageSettings) -> int:
        """One for each recorded seed."""
        return images.variants

    def window(self, record: SampleRecord, seed: str, window_px: int) -> Crop:
        """See `FeatureMode`."""
        return draw_sample_crop(record, seed, window_px, self.cell_px)

    def variant(self, epoch: int, num_features: int) -> int:
        """Crops repeat every K epochs."""
        return epoch % num_features

    def number(self, variant: int) -> int:
        """See `FeatureMode`."""
        return variant

    def cut(self, feature: np.ndarray, crop: Crop) -> np.ndarray:
        """All of it: the window is the crop."""
        return feature


FEATURE_MODES.add(Crops())

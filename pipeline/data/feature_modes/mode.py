"""What a mode of a feature cache is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from shards.degradation.crops import Crop, draw_crop
from shards.format.records import SampleRecord
from shards.format.settings import ImageSettings
from shards.registry import Registry


def draw_sample_crop(record: SampleRecord, seed: str, crop_px: int, cell_px: int = 1) -> Crop:
    """Draw a variant's crop: the one rule that training and the feature cache share.

    Args:
        record: The sample's.
        seed: The variant's, from `record.seed`.
        crop_px: Side of the HR patch.
        cell_px: Its offsets are multiples of this, and of the scale.
    """
    height_px, width_px = record.size_px
    multiple_px = int(np.lcm(record.scale, cell_px))
    return draw_crop(seed, height_px=height_px, width_px=width_px, crop_px=crop_px, multiple_px=multiple_px)


class FeatureMode(ABC):
    """What a feature is of.

    Attributes:
        name: As headers have it.
        cell_px: Offsets of the crops that training draws are multiples of it.
        orientations: Those in which windows are seen, as `Crop` numbers them.
    """

    name: Literal["crops", "map"]
    cell_px: int
    orientations: tuple[int, ...]

    @abstractmethod
    def window_px(self, images: ImageSettings, crop_px: int) -> int:
        """Return the side of the HR square that a feature is of, where training takes crops of `crop_px`."""

    @abstractmethod
    def num_features(self, images: ImageSettings) -> int:
        """Return the number of features of each sample."""

    @abstractmethod
    def window(self, record: SampleRecord, seed: str, window_px: int) -> Crop:
        """Return the square that a feature is of.

        Args:
            record: The sample's.
            seed: The feature's number, as a variant.
            window_px: Side.
        """

    @abstractmethod
    def variant(self, epoch: int, num_features: int) -> int:
        """Return the variant that training draws in an epoch."""

    @abstractmethod
    def number(self, variant: int) -> int:
        """Return the number of the feature for a variant."""

    @abstractmethod
    def cut(self, feature: np.ndarray, crop: Crop) -> np.ndarray:
        """Return what a feature (c, rows, columns) has of a crop, turned as the crop is."""


_HERE = "pipeline.data.feature_modes"
FEATURE_MODES: Registry[FeatureMode] = Registry(
    "feature mode", modules={"crops": f"{_HERE}.crops", "map": f"{_HERE}.map"}
)

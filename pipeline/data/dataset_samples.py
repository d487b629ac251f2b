"""The samples of one dataset in the order of a run: which sub-image, variant, crop and degradation, or replacement.

Everything about a sample follows from (manifest, seed, window, position). Nothing depends on ranks, workers or what was
read before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data.augmentation import UNCHANGED, DrawnAugmentation
from pipeline.data.datasets import Dataset
from pipeline.data.feature_modes.mode import draw_sample_crop
from pipeline.data.features import FeatureStore
from pipeline.data.prefetch import Prefetcher
from shards.degradation.crops import Crop
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import Recipe
from shards.degradation.recorded import recorded_recipe
from shards.errors import DamageError, InputError, ShardError
from shards.format.png import Pixels, decode_crop
from shards.format.records import SampleRecord
from shards.format.remote import RemotePath
from shards.format.settings import ImageSettings
from shards.format.storage import StoragePath
from shards.read.order import order_samples
from shards.read.reader import Sample, ShardSet

# With one corrupt sample in a hundred, 64 in a row do not happen; if they do, the data is lost anyway.
_MAX_REPLACEMENTS = 64


@dataclass(frozen=True)
class Item:
    """One sample of a batch. If it is a replacement, `fault` names the corrupt sample."""

    key: str
    hr: Pixels
    lq: Pixels | None
    parameters: SampleParameters | None
    semantics: np.ndarray | None
    fault: str | None = None
    augmentation: DrawnAugmentation = UNCHANGED

    @property
    def kind(self) -> str:
        """Samples of one kind can be stacked: LQ that is stored, or the recipe that makes it."""
        return self.parameters.recipe if self.parameters is not None else ""


def check_crop(data: DataConfig, dataset: Dataset) -> None:
    """Check that what a step reads of shards is whole LQ pixels, and not larger than their sub-images.

    Raises:
        InputError: It is not.
    """
    images = dataset.manifest.images
    patch_px = data.crop_px if images.has_lq else data.canvas_px
    if patch_px > images.sub_image_px:
        raise InputError(
            f"the step reads {patch_px} px of HR, but the sub-images in {dataset.folder} have {images.sub_image_px} "
            "px; lower --data.crop-px (or --data.canvas-px), or write shards with a larger --sub-image-px"
        )
    if patch_px % images.scale:
        nearest_px = patch_px // images.scale * images.scale
        raise InputError(
            f"the step reads {patch_px} px of HR, which are no whole pixels of LQ at the scale {images.scale} of "
            f"{dataset.folder}; set --data.{'crop-px' if images.has_lq else 'canvas-px'} to a multiple of "
            f"{images.scale}, such as {nearest_px}"
        )


class DatasetSamples:
    """Map-style view of a dataset that is read without end: item `position` is sample number `position` of its order.

    Attributes:
        images: The shards.
        order: The sampling order.
        prefetcher: Fetches remote shards ahead.
        lq_px: Side of the LQ crops.

    Args:
        data: Crop and canvas, the window of the sampling order, and the cache of remote shards.
        dataset: The shards.
        seed: Of the sampling order.
        features: Folder or URL of cached features, or None.

    Raises:
        InputError: The sub-images are smaller than the crop, or the cache does not fit.
    """

    def __init__(self, data: DataConfig, dataset: Dataset, seed: int, features: StoragePath | None = None) -> None:
        manifest = dataset.manifest
        self.images = ShardSet(dataset.folder, manifest, data.cache)
        self._features = FeatureStore(features, data.cache) if features else None
        sizes = [shard.num_samples for shard in manifest.shards]
        self.order = order_samples(sizes, seed, data.window_shards)
        read = [self.images] if self._features is None else [self.images, self._features.shards]
        if self._features is not None:
            self._features.require_shards_of(manifest)
        num_remote = sum(isinstance(folder, RemotePath) for folder in data.shares)
        self.prefetcher = Prefetcher(read, self.order, max(1, num_remote))
        self._settings = manifest.images
        self._patch_px = data.crop_px if self._settings.has_lq else data.canvas_px
        self._crop_px = data.crop_px
        self.lq_px = data.crop_px // self._settings.scale
        self._recipe = _recipe_of(self._settings)
        check_crop(data, dataset)

    def __getitem__(self, position: int) -> Item:
        """Read, check and cut sample number `position`, or its replacement.

        Raises:
            ShardError: A file is missing or cannot be read, or too many samples in a row are damaged.
        """
        self.prefetcher.advance(position)
        try:
            return self._read(self.order.index(position), position)
        except DamageError as damage:
            return self._replace(position, damage)

    def _replace(self, position: int, damage: DamageError) -> Item:
        for attempt in range(_MAX_REPLACEMENTS):
            try:
                item = self._read(self.order.replacement(position, attempt), position)
            except DamageError:
                continue
            return replace(item, fault=f"{damage}; took {item.key} instead")
        raise ShardError(f"{_MAX_REPLACEMENTS} samples in a row are damaged, the first: {damage}") from damage

    def _read(self, index: int, position: int) -> Item:
        epoch = position // len(self.images)
        features = self._features
        variant = epoch if features is None else features.variant(epoch)
        sample = self.images.sample(index)
        record = sample.record
        _check_record(record, sample.key, self._settings)
        seed = record.seed(variant, self._settings.seed)
        crop = draw_sample_crop(record, seed, self._patch_px, 1 if features is None else features.cell_px)
        semantics = None if features is None else features.read(index, sample.key, variant, crop)
        hr = self._decode(sample, "png", crop)
        key = f"{sample.key}#{variant}"
        if self._recipe is None:
            return Item(key, hr, self._decode(sample, "lq.png", crop.scaled(record.scale)), None, semantics)
        parameters = draw_parameters(
            self._recipe,
            seed,
            canvas_px=self._patch_px,
            crop_px=self._crop_px,
            scale=self._settings.scale,
        )
        return Item(key, hr, None, parameters, semantics)

    def _decode(self, sample: Sample, extension: str, crop: Crop) -> Pixels:
        member = f"{sample.key}.{extension}"
        return decode_crop(sample.part(extension), member, crop, self._settings.side_px[extension])


def _recipe_of(settings: ImageSettings) -> Recipe | None:
    """Return the recipe of training's own degradations; None where the shards hold LQ images."""
    return None if settings.has_lq else recorded_recipe(settings.recipe, settings.recipe_table)


def _check_record(record: SampleRecord, key: str, settings: ImageSettings) -> None:
    fault = record.fault(settings)
    if fault:
        raise DamageError(f"sample {key}: its record {fault}; write the shards again")

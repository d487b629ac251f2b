"""From a batch of the loader to the tensors of a step: degradation on the device, semantics of the HR images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config.schema import TrainConfig
from pipeline.data.batch import Batch, Images
from pipeline.data.datasets import Datasets
from pipeline.data.features import FeatureStore
from pipeline.degrade import TrainingImages, augment, degrade, of_partners
from pipeline.inference.features import feature_settings
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.train.micro_batches import StepInput


@dataclass(frozen=True)
class SemanticSource:
    """The source of a run's semantics.

    Attributes:
        extractor: The frozen network of an online run; None when the features are cached.
        channels: Channels of the semantic map.
        weights_sha256: Hash of the extractor's weights.
        description: For the log.
        is_shuffled: Whether a sample gets those of its partner.
        viewer: The network, on the CPU where the features are cached: for pictures of what a discriminator sees.
    """

    extractor: SemanticExtractor | None
    channels: int
    weights_sha256: str
    description: str
    is_shuffled: bool = False
    viewer: SemanticExtractor | None = None


def open_semantics(config: TrainConfig, datasets: Datasets, device: torch.device) -> SemanticSource | None:
    """Build the extractor, and check a cache against it; None for a run without semantics.

    Raises:
        ShardError: The cache belongs to other shards, another crop, extractor or weights, or a file of it is missing.
        InputError: There is no cache, or the extractor's weights are missing.
    """
    if not config.uses_semantics:
        return None
    semantics = config.semantics
    extractor = build_extractor(semantics, config.data.crop_px)
    if semantics.mode is not None:
        _check_cache(config, datasets, extractor, semantics.mode)
    description = f"{extractor.description}, {semantics.source}{', shuffled' if semantics.shuffled else ''}"
    channels, digest = extractor.channels, extractor.weights_sha256
    trained_with = extractor.to(device) if semantics.mode is None else None
    return SemanticSource(trained_with, channels, digest, description, semantics.shuffled, extractor)


def _check_cache(config: TrainConfig, datasets: Datasets, extractor: SemanticExtractor, mode: str) -> None:
    (dataset,) = datasets.members  # a configuration with more is refused
    store = FeatureStore(config.semantics.cache, config.data.cache)
    store.require(feature_settings(dataset.manifest, extractor, config.data.crop_px, mode))
    store.require_shards_of(dataset.manifest)
    store.require_files()


@dataclass(frozen=True)
class StepInputs:
    """Prepares the tensors of a step on the device.

    Attributes:
        semantics: Their source; None for a run without.
        autocast: Context that the extractor runs in.
        memory_format: Memory layout of the images.
    """

    semantics: SemanticSource | None
    autocast: Callable[[], AbstractContextManager[Any]]
    memory_format: torch.memory_format

    def __call__(self, batch: Batch, is_adversarial: bool) -> StepInput:
        """Return the tensors of one step; semantics only for an adversarial one."""
        lq, gt, target = self._images(batch)
        if not is_adversarial or self.semantics is None:
            return StepInput(lq, gt, target, None)
        semantics = self._semantics_of(batch, gt)
        return StepInput(lq, gt, target, of_partners(semantics) if self.semantics.is_shuffled else semantics)

    def _images(self, batch: Batch) -> TrainingImages:
        images = _unmixed(batch)
        lq, gt, target = images if batch.augmentation is None else augment(images, batch.augmentation)
        laid_out = self._lay_out(gt)
        return TrainingImages(self._lay_out(lq), laid_out, laid_out if target is gt else self._lay_out(target))

    def _lay_out(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=self.memory_format)

    def _semantics_of(self, batch: Batch, gt: Tensor) -> Tensor:
        if batch.semantics is not None:
            return batch.semantics.float()
        if self.semantics is None or self.semantics.extractor is None:
            raise RuntimeError("neither cached features nor an extractor")
        with torch.no_grad(), self.autocast():
            return self.semantics.extractor(gt).float()


def _unmixed(batch: Batch) -> TrainingImages:
    """Return LQ, HR and the target of a batch, before samples are mixed."""
    kinds = [_of_one_kind(images) for images in batch.images]
    if batch.order is None:
        return kinds[0]
    lq, gt = (torch.cat(column)[batch.order] for column in zip(*((one.lq, one.gt) for one in kinds), strict=True))
    if all(one.target is one.gt for one in kinds):
        return TrainingImages(lq, gt, gt)
    return TrainingImages(lq, gt, torch.cat([one.target for one in kinds])[batch.order])


def _of_one_kind(images: Images) -> TrainingImages:
    """Return LQ, HR and the target, which is HR itself where nothing is sharpened."""
    hr = images.hr.float() / 255
    if images.degradation is not None:
        return degrade(hr, images.degradation)
    if images.lq is None:
        raise RuntimeError("a batch without LQ and without its degradation")
    return TrainingImages(images.lq.float() / 255, hr, hr)

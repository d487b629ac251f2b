"""From a batch of the loader to the tensors of a step: degradation on the device, semantics of the HR images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config.schema import TrainConfig
from pipeline.data.batch import Batch
from pipeline.data.features import FeatureStore
from pipeline.degrade import degrade
from pipeline.inference.features import feature_settings
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.train.micro_batches import StepInput
from shards.format.manifest import Manifest


@dataclass(frozen=True)
class SemanticSource:
    """The source of a run's semantics.

    Attributes:
        extractor: The frozen network of an online run; None when the features are cached.
        channels: Channels of the semantic map.
        weights_sha256: Hash of the extractor's weights.
        description: For the log.
    """

    extractor: SemanticExtractor | None
    channels: int
    weights_sha256: str
    description: str


def open_semantics(config: TrainConfig, images: Manifest, device: torch.device) -> SemanticSource | None:
    """Build the extractor, and check a cache against it; None for a run without semantics.

    Raises:
        ShardError: The cache belongs to other shards, another crop, extractor or weights.
        InputError: There is no cache, or the extractor's weights are missing.
    """
    if not config.uses_semantics:
        return None
    semantics = config.semantics
    extractor = build_extractor(semantics, config.data.crop_px)
    is_cached = semantics.source == "cached"
    if is_cached:
        _check_cache(config, images, extractor)
    description = f"{extractor.description}, {semantics.source}"
    channels, digest = extractor.channels, extractor.weights_sha256
    return SemanticSource(None if is_cached else extractor.to(device), channels, digest, description)


def _check_cache(config: TrainConfig, images: Manifest, extractor: SemanticExtractor) -> None:
    store = FeatureStore(config.semantics.cache, config.data.cache)
    store.require(feature_settings(images, extractor, config.data.crop_px))


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
        semantics = self._semantics_of(batch, gt) if is_adversarial and self.semantics is not None else None
        return StepInput(lq, gt, target, semantics)

    def _images(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        hr = batch.hr.float() / 255
        if batch.degradation is not None:
            lq, gt, target = degrade(hr, batch.degradation)
            return self._lay_out(lq), self._lay_out(gt), self._lay_out(target)
        if batch.lq is None:
            raise RuntimeError("a classical batch without LQ")
        gt = self._lay_out(hr)
        return self._lay_out(batch.lq.float() / 255), gt, gt

    def _lay_out(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=self.memory_format)

    def _semantics_of(self, batch: Batch, gt: Tensor) -> Tensor:
        if batch.semantics is not None:
            return batch.semantics.float()
        if self.semantics is None or self.semantics.extractor is None:
            raise RuntimeError("neither cached features nor an extractor")
        with torch.no_grad(), self.autocast():
            return self.semantics.extractor(gt).float()

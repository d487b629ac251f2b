"""Sample number `position` of a run, the same on every machine.

Everything about it follows from (manifest, seed, window, position): which sub-image, which variant, which crop, which
degradation; and, where that sub-image is corrupt, its replacement. Nothing depends on ranks, workers or what was read
before, so resuming is arithmetic.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from pipeline.config.data import DataConfig
from pipeline.data.batch import Batch
from pipeline.data.features import FeatureStore, image_manifest
from pipeline.data.prefetch import Prefetcher
from pipeline.degrade import stack_parameters
from shards.degradation.crops import Crop, draw_crop
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import Recipe
from shards.degradation.recorded import recorded_recipe
from shards.errors import DamageError, InputError, ShardError
from shards.format.manifest import Manifest
from shards.format.png import Pixels, decode_crop
from shards.format.records import SampleRecord
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


def check_crop(data: DataConfig, manifest: Manifest) -> None:
    """Check that what a step reads of shards is whole LQ pixels, and not larger than their sub-images.

    Raises:
        InputError: It is not.
    """
    images = manifest.images
    patch_px = data.crop_px if images.has_lq else data.canvas_px
    if patch_px > images.sub_image_px:
        raise InputError(
            f"the step reads {patch_px} px of HR, but the sub-images in {data.shards} have {images.sub_image_px} px; "
            "lower --data.crop-px (or --data.canvas-px), or write shards with a larger --sub-image-px"
        )
    if patch_px % images.scale:
        nearest_px = patch_px // images.scale * images.scale
        raise InputError(
            f"the step reads {patch_px} px of HR, which are no whole pixels of LQ at the scale {images.scale} of "
            f"{data.shards}; set --data.{'crop-px' if images.has_lq else 'canvas-px'} to a multiple of {images.scale}, "
            f"such as {nearest_px}"
        )


def draw_sample_crop(record: SampleRecord, seed: str, crop_px: int) -> Crop:
    """Draw a variant's crop: the one rule that training and the feature cache share.

    Args:
        record: The sample's.
        seed: The variant's, from `record.seed`.
        crop_px: Side of the HR patch.
    """
    height_px, width_px = record.size_px
    return draw_crop(seed, height_px=height_px, width_px=width_px, crop_px=crop_px, multiple_px=record.scale)


class TrainingSamples(Dataset[Item]):
    """Map-style view of an endless run: item `position` is the run's sample number `position`.

    Args:
        data: Names the shards, crop and canvas, the window of the sampling order, and the cache of remote shards.
        seed: Of the sampling order.
        features: Folder or URL of cached features, or None.

    Raises:
        InputError: There are no shards, their sub-images are smaller than the crop, or the cache does not fit.
    """

    def __init__(self, data: DataConfig, seed: int, features: StoragePath | None = None) -> None:
        self._manifest = image_manifest(data.shards)
        self._images = ShardSet(data.shards, self._manifest, data.cache)
        self._features = FeatureStore(features, data.cache) if features else None
        sizes = [shard.num_samples for shard in self._manifest.shards]
        self._order = order_samples(sizes, seed, data.window_shards)
        read = [self._images] if self._features is None else [self._images, self._features.shards]
        if self._features is not None:
            self._features.require_samples_of(self._manifest)
        self._prefetcher = Prefetcher(read, self._order)
        self._settings = self._manifest.images
        self._patch_px = data.crop_px if self._settings.has_lq else data.canvas_px
        self._crop_px = data.crop_px
        self._recipe = _recipe_of(self._settings)
        check_crop(data, self._manifest)

    def __getitem__(self, position: int) -> Item:
        """Read, check and cut sample number `position`, or its replacement.

        Raises:
            ShardError: A file is missing or cannot be read, or too many samples in a row are damaged.
        """
        self._prefetcher.advance(position)
        try:
            return self._read(self._order.index(position), position)
        except DamageError as damage:
            return self._replace(position, damage)

    def _replace(self, position: int, damage: DamageError) -> Item:
        for attempt in range(_MAX_REPLACEMENTS):
            try:
                item = self._read(self._order.replacement(position, attempt), position)
            except DamageError:
                continue
            return replace(item, fault=f"image {position:,} of the run: {damage}; took {item.key} instead")
        raise ShardError(f"{_MAX_REPLACEMENTS} samples in a row are damaged, the first: {damage}") from damage

    def _read(self, index: int, position: int) -> Item:
        epoch = position // len(self._images)
        variant = epoch if self._features is None else epoch % self._features.settings.num_variants
        sample = self._images.sample(index)
        record = sample.record
        _check_record(record, sample.key, self._settings)
        seed = record.seed(variant, self._settings.seed)
        crop = draw_sample_crop(record, seed, self._patch_px)
        semantics = None if self._features is None else self._features.read(index, sample.key, variant)
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
    recipe = recorded_recipe(settings.recipe, settings.recipe_table) if settings.has_recipe else None
    return None if settings.has_lq else recipe


def _check_record(record: SampleRecord, key: str, settings: ImageSettings) -> None:
    fault = record.fault(settings)
    if fault:
        raise DamageError(f"sample {key}: its record {fault}; write the shards again")


class RankBatches(Sampler[list[int]]):
    """Sampler of the positions of one rank's batches.

    Step `t` of a run takes the positions `t * batch_size` to `(t + 1) * batch_size - 1`; rank `r` of `n` takes the
    r-th n-th of them. Every rank has the same number of steps, whatever the data.

    Args:
        first_image: Images seen so far, a multiple of the batch size.
        num_steps: Steps left.
        batch_size: Images per step, over all ranks.
        rank: Of this process.
        world_size: Number of processes; divides `batch_size`.
    """

    def __init__(self, first_image: int, num_steps: int, batch_size: int, rank: int, world_size: int) -> None:
        self._first_image = first_image
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._share = batch_size // world_size
        self._rank = rank

    def __len__(self) -> int:
        return self._num_steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._num_steps):
            start = self._first_image + step * self._batch_size + self._rank * self._share
            yield list(range(start, start + self._share))


def collate(items: Sequence[Item]) -> Batch:
    """Stack samples of equal size into a batch."""
    lqs = [item.lq for item in items if item.lq is not None]
    semantics = [item.semantics for item in items if item.semantics is not None]
    parameters = [item.parameters for item in items if item.parameters is not None]
    return Batch(
        hr=_stack([_channels_first(item.hr) for item in items]),
        lq=_stack([_channels_first(lq) for lq in lqs]) if lqs else None,
        degradation=stack_parameters(parameters) if parameters else None,
        semantics=_stack(semantics) if semantics else None,
        keys=tuple(item.key for item in items),
        faults=tuple(item.fault for item in items if item.fault is not None),
    )


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    """Stack arrays; in a loader process directly in shared memory, which saves a copy."""
    kind = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    shape = (len(arrays), *arrays[0].shape)
    stacked = torch.empty(shape if get_worker_info() is None else 0, dtype=kind)
    if get_worker_info() is not None:
        memory = torch.UntypedStorage._new_shared(math.prod(shape) * kind.itemsize)
        stacked.set_(memory, 0, shape)  # pyright: ignore[reportCallIssue] - its stub has no such storage
    np.stack(arrays, out=stacked.numpy())
    return stacked


def _channels_first(image: Pixels) -> np.ndarray:
    return image.transpose(2, 0, 1)


def batches(samples: TrainingSamples, order: RankBatches, num_workers: int, *, pin_memory: bool) -> Iterable[Batch]:
    """Return a loader of one rank's batches; the same batches for any number of workers."""
    loader: Iterable[Batch] = DataLoader(
        samples,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        # Workers are spawned: a fork of a process with a CUDA context or gloo threads may hang.
        multiprocessing_context="spawn" if num_workers else None,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_exit_at_once,
    )
    return loader


def _exit_at_once(_: int) -> None:
    """Make this loader process exit without finalizing the interpreter.

    Finalization kills a thread that is still handing a batch over inside C++, which aborts the process: a message in
    the log, and an error in the training process, of a run that was only stopped.
    """
    Finalize(None, _exit_unless_failed, exitpriority=-100)  # runs last in a multiprocessing process


def _exit_unless_failed() -> None:
    if sys.exc_info()[0] is None:
        sys.stderr.flush()
        os._exit(0)

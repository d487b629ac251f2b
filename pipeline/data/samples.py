"""Sample number `position` of a run, the same on every machine, and the batches of one rank.

Everything about it follows from (manifests, seed, window, position): which dataset of a mix, which sub-image, variant,
crop and degradation (`pipeline.data.dataset_samples`), and which augmentation. Nothing depends on ranks, workers or
what was read before, so resuming is arithmetic.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from pipeline.config.data import DataConfig
from pipeline.data.augmentation import draw_augmentation, stack_augmentations
from pipeline.data.batch import Batch, Images
from pipeline.data.dataset_samples import DatasetSamples, Item
from pipeline.data.datasets import Datasets, open_datasets
from pipeline.degrade import stack_parameters
from shards.format.png import Pixels
from shards.format.storage import StoragePath
from shards.read.mix import Mix


class TrainingSamples(Dataset[Item]):
    """Map-style view of an endless run: item `position` is the run's sample number `position`.

    Attributes:
        members: The samples of each dataset.

    Args:
        data: Names the shards and their shares, crop and canvas, the window of the sampling order, and the cache of
            remote shards.
        seed: Of the sampling order, of the mix of datasets and of augmentations.
        features: Folder or URL of cached features of the only dataset, or None.
        datasets: The shards, where they have been opened already: nobody must read two states of them.

    Raises:
        InputError: There are no shards, their sub-images are smaller than the crop, or the cache does not fit.
    """

    def __init__(
        self, data: DataConfig, seed: int, features: StoragePath | None = None, datasets: Datasets | None = None
    ) -> None:
        members = (datasets or open_datasets(data)).members
        self._mix = Mix(tuple(dataset.thousandths for dataset in members), seed)
        self.members = [
            DatasetSamples(data, dataset, self._mix.seed_of(number), features) for number, dataset in enumerate(members)
        ]
        self._augmentation, self._seed = data.augmentation, seed

    def __getitem__(self, position: int) -> Item:
        """Read, check and cut sample number `position`, or its replacement, and draw its augmentation.

        Raises:
            ShardError: A file is missing or cannot be read, or too many samples in a row are damaged.
        """
        number, own_position = self._mix.at(position)
        member = self.members[number]
        item = member[own_position]
        if item.fault is not None:
            item = replace(item, fault=f"image {position:,} of the run: {item.fault}")
        if not self._augmentation.is_used:
            return item
        drawn = draw_augmentation(self._augmentation, self._seed, position, member.lq_px)
        name = f"+{drawn.kind.name.lower()}" if drawn.kind else ""
        return replace(item, key=f"{item.key}{name}", augmentation=drawn)


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
    """Stack samples of equal size into a batch, those of one kind together."""
    kinds: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        kinds.setdefault(item.kind, []).append(place)
    order = torch.tensor([place for places in kinds.values() for place in places]).argsort() if len(kinds) > 1 else None
    semantics = [item.semantics for item in items if item.semantics is not None]
    return Batch(
        images=tuple(_stack_images([items[place] for place in places]) for places in kinds.values()),
        keys=tuple(item.key for item in items),
        semantics=_stack(semantics) if semantics else None,
        faults=tuple(item.fault for item in items if item.fault is not None),
        order=order,
        augmentation=stack_augmentations([item.augmentation for item in items]),
    )


def _stack_images(items: Sequence[Item]) -> Images:
    lqs = [item.lq for item in items if item.lq is not None]
    parameters = [item.parameters for item in items if item.parameters is not None]
    return Images(
        hr=_stack([_channels_first(item.hr) for item in items]),
        lq=_stack([_channels_first(lq) for lq in lqs]) if lqs else None,
        degradation=stack_parameters(parameters) if parameters else None,
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

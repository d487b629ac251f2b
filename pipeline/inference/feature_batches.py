"""The features of many samples, in order: windows are cut ahead of the extractor, which sees batches of them.

The work of a shard is a stream, so memory does not depend on its length: a few batches of windows and of payloads.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

import numpy as np
import torch

from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.models.semantics.extractor import SemanticExtractor
from shards.errors import ShardError
from shards.format.png import decode_crop
from shards.format.settings import FeatureSettings, ImageSettings
from shards.read.reader import Sample

T = TypeVar("T")
R = TypeVar("R")

# 32 crops of 256 px, or 9 maps of 480 px. A CPU needs no batch: what one image activates fits its caches better.
_GPU_BATCH_PIXELS = 2**21


def in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yield `function` of every item, in order, computed by the pool for up to `ahead` items before they are needed."""
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def batch_samples(wanted: FeatureSettings, device: torch.device) -> int:
    """Return the number of samples whose windows make a batch."""
    pixels = _GPU_BATCH_PIXELS if device.type == "cuda" else 0
    return max(1, pixels // (wanted.num_variants * wanted.crop_px**2))


def cut_windows(sample: Sample, wanted: FeatureSettings, dataset: ImageSettings) -> np.ndarray:
    """Return the windows of a sample's features, (features, side, side, 3) uint8.

    Raises:
        ShardError: The sample is damaged, or of another size than its dataset's.
    """
    record, mode = sample.record, FEATURE_MODES[wanted.mode]
    if fault := record.fault(dataset):
        raise ShardError(f"sample {sample.key}: its record {fault}; write the shards again")
    seeds = [record.seed(number, dataset.seed) for number in range(wanted.num_variants)]
    windows = [mode.window(record, seed, wanted.crop_px) for seed in seeds]
    png = sample.part("png")
    return np.stack([decode_crop(png, sample.key, window, dataset.sub_image_px) for window in windows])


@torch.inference_mode()
def extract(windows: np.ndarray, extractor: SemanticExtractor, device: torch.device) -> np.ndarray:
    """Return the features of windows, (n, c, h, w), little-endian float16, finite or not."""
    images = torch.from_numpy(windows).to(device).permute(0, 3, 1, 2).float() / 255
    return extractor(images).half().cpu().numpy().astype("<f2", copy=False)


def require_finite(key: str, features: np.ndarray) -> np.ndarray:
    """Return the features of a sample.

    Raises:
        ShardError: A value did not fit float16.
    """
    if not np.isfinite(features).all():
        raise ShardError(f"{key}: a feature does not fit float16; use --semantics.source online")
    return features


def features_of(
    samples: Iterable[Sample],
    wanted: FeatureSettings,
    dataset: ImageSettings,
    extractor: SemanticExtractor,
    device: torch.device,
    pool: Executor,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield key and features, (features, c, h, w), of each sample in order.

    Args:
        samples: In order.
        wanted: Mode, windows and number of features.
        dataset: Of the samples.
        extractor: On the device.
        device: The extractor's.
        pool: Threads that cut windows of the next batch meanwhile.

    Raises:
        ShardError: A sample is damaged or of another size than its dataset's, or a value does not fit float16.
    """

    def cut(sample: Sample) -> tuple[str, np.ndarray]:
        return sample.key, cut_windows(sample, wanted, dataset)

    size = batch_samples(wanted, device)
    for batch in _batched(in_order(pool, cut, samples, size), size):
        keys, windows = zip(*batch, strict=True)
        features = extract(np.concatenate(windows), extractor, device)
        for key, own in zip(keys, np.split(features, len(keys)), strict=True):
            yield key, require_finite(key, own)


def _batched(items: Iterator[T], size: int) -> Iterator[Sequence[T]]:
    return iter(functools.partial(_take, items, size), [])


def _take(items: Iterator[T], size: int) -> list[T]:
    return list(itertools.islice(items, size))

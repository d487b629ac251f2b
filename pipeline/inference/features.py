"""Writes the cache of semantic features: one feature tar for every image tar, with the same keys in the same order.

Each feature is the extractor's output for exactly the window that the cache's mode names: the crop that training will
cut for (sample, variant), or the sub-image. A tar that exists with the right header is not written again.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.config.schema import DataConfig, SemanticsConfig
from pipeline.data.datasets import image_manifest
from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.data.features import FEATURES, codec_of
from pipeline.errors import ConfigError
from pipeline.inference.feature_batches import cut_windows, extract, features_of, in_order, require_finite
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.runtime.host_memory import keep_freed_memory
from shards.errors import ShardError
from shards.format.codecs import CODECS, DEFAULT_CODEC, Coding
from shards.format.documents import digest_of
from shards.format.feature_coding import STATE_FILE, find_state, open_coding, write_state
from shards.format.files import clean_stale
from shards.format.manifest import Manifest, write_manifest
from shards.format.outputs import check_output_folder
from shards.format.settings import FeatureSettings
from shards.format.sidecars import ShardEntry
from shards.format.storage import StoragePath
from shards.format.tars import publish_shard
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet
from shards.write.execution import Executor
from shards.write.missing import finished_entries, missing_tasks, require_all

_WORKER_BYTES = 1500 * 2**20
_MAX_THREADS, _AHEAD_PER_THREAD = 16, 2
_OUTPUT_NAMES = re.compile(rf"\..*|{FEATURES}-\d{{6}}\.(tar|json)|manifest\.json|status\.json|{re.escape(STATE_FILE)}")
# Enough cells for a covariance of 1,024 channels (256 each at 256 px), from few shards: each may have to be fetched.
_FIT_SHARDS, _FIT_SAMPLES_PER_SHARD = 8, 16


@dataclass(frozen=True)
class FeatureTask:
    """One feature tar to write; small and picklable."""

    images: StoragePath
    image_shard: ShardEntry
    number: int
    output: StoragePath
    semantics: SemanticsConfig
    settings: FeatureSettings
    cache: ShardCache | None = None

    @property
    def name(self) -> str:
        """Name of the feature shard, without suffix."""
        return f"{FEATURES}-{self.number:06d}"

    @property
    def header(self) -> dict[str, Any]:
        """The header that binds the tar to its image shard and extractor."""
        bound = {"image_shard": self.image_shard.name, "image_shard_sha256": self.image_shard.sha256}
        return self.settings.to_plain() | bound


def feature_settings(
    images: Manifest, extractor: SemanticExtractor, crop_px: int, mode: str = "crops"
) -> FeatureSettings:
    """Return what the features of some image shards depend on.

    Raises:
        ConfigError: The shards are of the real-world task, whose canvas is larger than the crop, the crop does not
            fit, or the extractor takes crops alone and the mode shows it sub-images.
    """
    settings = images.images
    if not settings.has_lq:
        raise ConfigError(
            "features are cached for classical and paired shards only; real-world training computes them online "
            "(--semantics.source online)"
        )
    if crop_px > settings.sub_image_px or crop_px % extractor.stride_px:
        raise ConfigError(
            f"crop_px={crop_px} must be a multiple of {extractor.stride_px} and at most the sub-images' "
            f"{settings.sub_image_px} px"
        )
    of = FEATURE_MODES[mode]
    window_px = of.window_px(settings, crop_px)
    if window_px != crop_px and extractor.backbone.model.only_px:
        raise ConfigError(
            f"{extractor.name}, is built for crops, and the mode {of.name} shows it {window_px} px; "
            "set --semantics.source cached, or another --semantics.architecture"
        )
    side = window_px // extractor.stride_px
    return FeatureSettings(
        image_manifest=images.digest,
        crop_px=window_px,
        num_variants=of.num_features(settings),
        extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        shape=(extractor.channels, side, side),
        preprocessing=extractor.preprocessing,
        mode=of.name,
        orientations=of.orientations,
    )


def plan_features(
    output: StoragePath,
    data: DataConfig,
    semantics: SemanticsConfig,
    extractor: SemanticExtractor,
    codec: str | None = None,
) -> list[FeatureTask]:
    """Plan one feature tar per image shard.

    Args:
        output: Folder or URL of the features.
        data: Names the image shards, the crop, and where copies of remote shards are kept.
        semantics: Builds the extractor again in a worker.
        extractor: What `semantics` builds; identifies the features.
        codec: How features are stored; None for that of the output, where a cache is begun, else `DEFAULT_CODEC`.

    Raises:
        InputError: There are no image shards, their features cannot be cached (see `feature_settings`), or the output
            holds something else, features in another codec among that.
    """
    images = image_manifest(data.shards)
    check_output_folder(output, (data.shards,), _OUTPUT_NAMES)
    settings = feature_settings(images, extractor, data.crop_px, semantics.mode or "crops")
    settings = settings.coded_by(_chosen_codec(output, codec))
    folder = data.shards.resolve()
    return [
        FeatureTask(folder, entry, number, output.resolve(), semantics, settings, data.cache)
        for number, entry in enumerate(images.shards)
    ]


def _chosen_codec(output: StoragePath, codec: str | None) -> str:
    begun = codec_of(output)
    if codec is not None and begun not in (None, codec):
        raise ShardError(
            f"the features in {output} have the codec {begun}, and {codec} is to be written; "
            f"give another output folder, or no codec, to finish them in {begun}"
        )
    return codec or begun or DEFAULT_CODEC


def fit_codec(tasks: Sequence[FeatureTask], extractor: SemanticExtractor) -> list[FeatureTask]:
    """Let the codec learn from a sample of the data, if it has to and has not yet, and write what it learned.

    Args:
        tasks: From `plan_features`; their output exists.
        extractor: What the tasks will build, on the CPU, so that the same machine learns the same.

    Returns:
        The tasks, whose settings name what was learned.
    """
    first = tasks[0]
    codec, settings = CODECS[first.settings.codec], first.settings
    if not codec.is_fitted:
        return list(tasks)
    fitted = find_state(first.output, settings)
    if fitted is None:
        fitted = write_state(first.output, settings, codec.fit(_sample_of(first, extractor)))
    return [replace(task, settings=fitted) for task in tasks]


def _sample_of(task: FeatureTask, extractor: SemanticExtractor) -> Iterator[np.ndarray]:
    """Yield features of samples at equal distances: shards hold photos in random order."""
    images, one_variant = ShardSet.open(task.images, task.cache), replace(task.settings, num_variants=1)
    for shard in _spread(range(len(images.manifest.shards)), _FIT_SHARDS):
        for index in _spread(images.range_of(shard), _FIT_SAMPLES_PER_SHARD):
            sample = images.sample(index)
            windows = cut_windows(sample, one_variant, images.manifest.images)
            yield require_finite(sample.key, extract(windows, extractor, torch.device("cpu")))[0]


def _spread(numbers: range, count: int) -> list[int]:
    """Return at most `count` of the numbers, at equal distances."""
    count = min(count, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]


def write_feature_dataset(
    output: StoragePath, tasks: Sequence[FeatureTask], executor: Executor, *, num_gpus: float
) -> Manifest:
    """Write the feature tars that are missing, and the manifest last.

    Args:
        output: Folder or URL; created if it does not exist.
        tasks: From `plan_features`.
        executor: Where the features are computed.
        num_gpus: GPUs per task; fractions share one.

    Raises:
        ShardError: A tar was removed while others were written.
    """
    output.mkdir(parents=True, exist_ok=True)
    clean_stale(output)
    entries = finished_entries(output, tasks)
    if entries:
        executor.say(f"reusing {len(entries)} of {len(tasks)} feature tars")
    missing = missing_tasks(tasks, entries)
    settings = tasks[0].settings
    num_features = settings.num_variants * sum(task.image_shard.num_samples for task in missing)
    unit = {"crops": "crops", "map": "maps"}[settings.mode]
    if missing:
        with executor.progress("caching features", num_features, unit) as progress:
            for _, entry in executor.map(write_features, missing, num_gpus=num_gpus, memory_bytes=_WORKER_BYTES):
                progress.advance(settings.num_variants * entry.num_samples, size_bytes=entry.size_bytes)
        clean_stale(output)  # left by killed workers
        entries = require_all(output, tasks)
    manifest = Manifest(digest_of(settings.to_plain()), settings, tuple(entries[task.name] for task in tasks))
    write_manifest(output, manifest)
    executor.say(f"{output}: {manifest.num_samples} samples, {manifest.size_bytes / 2**20:.1f} MiB")
    return manifest


def write_features(task: FeatureTask) -> ShardEntry:
    """Write one feature tar. Runs in a worker process, which keeps its extractor between tasks."""
    torch.set_num_threads(1)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = _worker_extractor(task.semantics, task.settings.crop_px, device)
    _require_same(extractor, task.settings)
    images, coding = ShardSet.open(task.images, task.cache), _worker_coding(task.output, task.settings)
    return publish_shard(task.output, task.name, _members(task, images, extractor, coding, device), task.header)


def _require_same(extractor: SemanticExtractor, planned: FeatureSettings) -> None:
    """Refuse an extractor that this machine builds from another file than the one that planned."""
    found = (extractor.name, extractor.weights_sha256)
    if found != (planned.extractor, planned.weights_sha256):
        raise ShardError(
            f"this worker built the extractor {found[0]} with weights {found[1][:12]}, the job planned for "
            f"{planned.extractor} with {planned.weights_sha256[:12]}; give every machine the same file of weights"
        )


@functools.lru_cache(maxsize=1)
def _worker_extractor(semantics: SemanticsConfig, crop_px: int, device: torch.device) -> SemanticExtractor:
    return build_extractor(semantics, crop_px).to(device)


@functools.lru_cache(maxsize=1)
def _worker_coding(folder: StoragePath, settings: FeatureSettings) -> Coding:
    return open_coding(folder, settings)


def _members(
    task: FeatureTask, images: ShardSet, extractor: SemanticExtractor, coding: Coding, device: torch.device
) -> Iterator[tuple[str, bytes]]:
    settings, dataset = task.settings, images.manifest.images
    num_threads = _num_threads(device)

    def encode(feature: tuple[str, np.ndarray]) -> tuple[str, bytes]:
        member, values = feature
        return member, coding.encode(values)

    with ThreadPoolExecutor(num_threads) as pool:
        features = features_of(images.samples_of(task.number), settings, dataset, extractor, device, pool)
        members = (
            (f"{key}.{extension}", one)
            for key, own in features
            for extension, one in zip(settings.extensions, own, strict=True)
        )
        yield from in_order(pool, encode, members, _AHEAD_PER_THREAD * num_threads)


def _num_threads(device: torch.device) -> int:
    """Return the threads that cut and encode: a GPU outruns many, and a CPU's extractor has the core to itself."""
    return min(_MAX_THREADS, os.cpu_count() or 1) if device.type == "cuda" else 1

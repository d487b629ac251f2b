"""Measures what a run's step, extractor, loader, codecs and storage do on this machine: in under two minutes."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.schema import TrainConfig
from pipeline.data.datasets import Dataset
from pipeline.data.feature_modes.mode import draw_sample_crop
from pipeline.data.samples import TrainingSamples
from pipeline.inference.machine_profile import MachineProfile
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.run.assembly import build_gan, build_losses, build_state, memory_format_of, start_networks
from pipeline.run.memory import resolve_micro_batch
from pipeline.runtime.backend import Backend
from pipeline.train.gan_step import Turn
from pipeline.train.micro_batches import StepInput
from shards.format.codecs import CODECS
from shards.format.png import decode_crop
from shards.format.remote import RemotePath
from shards.format.storage import child, open_regular, read_whole
from shards.read.reader import ShardSet

_BUDGET_S = 12.0
"""Of each part; a single step may take longer."""
_MAX_CALLS = 200
_NUM_CROPS = 16
_READ_BYTES = 2**30
_BLOCK_BYTES = 2**22


def measure_machine(config: TrainConfig, dataset: Dataset) -> MachineProfile:
    """Measure one GPU, or the CPU where there is none, as one process of the run would use it.

    Args:
        config: The run. Weights do not change a step's time, so random ones take the place of files and downloads.
        dataset: Its image shards.

    Raises:
        InputError: The networks do not fit, or the shards cannot be read.
    """
    config = _without_weights(config)
    if not torch.cuda.is_available():  # compiling takes minutes there, bf16 perhaps too, and training is for trying out
        runtime = dataclasses.replace(config.runtime, compile=False, precision="float32")
        config = dataclasses.replace(config, runtime=runtime)
    backend = Backend(config.runtime, batch_size=config.data.batch_size)
    config = resolve_micro_batch(config, backend)
    try:
        extractor = build_extractor(config.semantics, config.data.crop_px).to(backend.device)
        crops = _read_crops(config, dataset)
        features = _extract(extractor, crops, backend)
        step_batch, step_rate = _time_step(config, extractor, backend)
        extractor_rate = _time_extractor(config, extractor, crops, backend)
        feature_bytes, decode_rates = _time_codecs(features)
        return MachineProfile(
            device=_name_of(backend.device),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            crop_px=config.data.crop_px,
            extractor=extractor.name,
            networks=networks_of(config),
            step_batch=step_batch,
            step_images_per_second=step_rate,
            extractor_images_per_second=extractor_rate,
            loader_images_per_second=_time_loader(config, dataset),
            decode_images_per_second=decode_rates,
            feature_bytes=feature_bytes,
            read_mb_per_second=_time_storage(dataset),
        )
    finally:
        backend.close()


def networks_of(config: TrainConfig) -> str:
    """Return the networks of a step by name, for the identity of a profile."""
    names = [options.architecture for options in config.discriminators.values()]
    return f"{config.generator.architecture} x{config.generator.scale} with {', '.join(names)}"


def _without_weights(config: TrainConfig) -> TrainConfig:
    losses, generator = config.losses, config.generator
    is_here = losses.perceptual_weights == "package"
    if not generator.from_file:  # else the file says what the network is
        generator = dataclasses.replace(generator, initial_weights=None, initial_weights_partial=False)
    return dataclasses.replace(
        config,
        generator=generator,
        discriminator=dataclasses.replace(config.discriminator, initial_weights=None, initial_weights_partial=False),
        semantics=dataclasses.replace(config.semantics, source="online"),
        losses=dataclasses.replace(losses, perceptual_weights=losses.perceptual_weights if is_here else "random"),
    )


def _read_crops(config: TrainConfig, dataset: Dataset) -> torch.Tensor:
    """Return crops as the cache's job cuts them, (n, 3, crop, crop) in [0, 1]."""
    images = ShardSet(dataset.folder, dataset.manifest, config.data.cache)
    settings = dataset.manifest.images
    cut = []
    for index in range(min(_NUM_CROPS, len(images))):
        sample = images.sample(index)
        seed = sample.record.seed(0, settings.seed)
        crop = draw_sample_crop(sample.record, seed, config.data.crop_px)
        cut.append(decode_crop(sample.part("png"), sample.key, crop, settings.sub_image_px))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255


def _extract(extractor: SemanticExtractor, crops: torch.Tensor, backend: Backend) -> np.ndarray:
    return torch.cat([extractor(crop[None].to(backend.device)).half().cpu() for crop in crops]).numpy()


def _time_extractor(config: TrainConfig, extractor: SemanticExtractor, crops: torch.Tensor, backend: Backend) -> float:
    """Return crops/s as in a step: in its batch and precision."""
    batch = _repeated(crops, config.data.batch_size).to(backend.device)

    def extract() -> None:
        with torch.no_grad(), backend.autocast():
            extractor(batch)

    return len(batch) / _seconds(extract, backend.device)


def _time_step(config: TrainConfig, extractor: SemanticExtractor, backend: Backend) -> tuple[int, float]:
    """Return the batch that was timed, and images/s: the run's batch, or one image where that takes too long."""
    gan, step = build_gan(
        config,
        build_state(config, start_networks(config, extractor.channels), backend),
        build_losses(config),
        backend,
    )
    schedule = config.schedule
    turn = Turn(schedule.generator_learning_rate, schedule.discriminator_learning_rate)

    def seconds_of(batch: int) -> float:
        inputs = _noise(config, extractor, batch, backend.device)
        return _seconds(lambda: step(gan, inputs, turn), backend.device)

    alone_s = seconds_of(1)
    batch = config.data.batch_size
    # A GPU takes a batch in far less than the sum; a CPU does not, and gains nothing from it.
    if backend.device.type == "cpu" and alone_s * batch > _BUDGET_S / 2:
        return 1, 1 / alone_s
    return batch, batch / seconds_of(batch)


def _noise(config: TrainConfig, extractor: SemanticExtractor, batch: int, device: torch.device) -> StepInput:
    """Return inputs of a step; its time does not depend on what is in them."""
    crop_px, scale = config.data.crop_px, config.generator.scale
    layout = memory_format_of(config.runtime)
    lq, gt = (
        torch.rand(batch, 3, side, side, device=device).contiguous(memory_format=layout)
        for side in (crop_px // scale, crop_px)
    )
    side = crop_px // extractor.stride_px
    return StepInput(lq, gt, gt, torch.rand(batch, extractor.channels, side, side, device=device))


def _time_codecs(features: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean bytes of a feature, and features decoded per second of one core, by codec."""
    sizes, rates = {}, {}
    _, channels, height, width = features.shape
    for codec in CODECS:
        coding = codec.bind((channels, height, width), codec.fit(features))
        payloads = [coding.encode(feature) for feature in features]
        sizes[codec.name] = float(statistics.mean(map(len, payloads)))
        start_s = time.process_time()
        for payload in payloads:
            coding.decode(payload)
        rates[codec.name] = len(payloads) / max(time.process_time() - start_s, 1e-6)
    return sizes, rates


def _time_loader(config: TrainConfig, dataset: Dataset) -> float:
    """Return images/s of one loader process without features, in the order of the run."""
    samples = TrainingSamples(config.data, config.seed)
    positions = iter(range(10**9))
    return 1 / _seconds(lambda: samples[next(positions)], torch.device("cpu"), budget_s=_BUDGET_S / 3)


def _time_storage(dataset: Dataset) -> float:
    """Return 10^6 bytes/s of reading whole tars, from the device and not from the page cache where that can be."""
    read_bytes, start_s = 0, time.perf_counter()
    for block_bytes in _blocks_of(dataset):
        read_bytes += block_bytes
        if read_bytes >= _READ_BYTES or time.perf_counter() - start_s > _BUDGET_S:
            break
    return read_bytes / 1e6 / (time.perf_counter() - start_s)


def _blocks_of(dataset: Dataset) -> Iterator[int]:
    for entry in dataset.manifest.shards:
        path = child(dataset.folder, entry.tar_name)
        if isinstance(path, RemotePath):
            yield len(read_whole(path, entry.size_bytes))
        else:
            yield from _uncached_blocks(path)


def _uncached_blocks(path: Path) -> Iterator[int]:
    with open_regular(path) as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for block in iter(functools.partial(stream.read, _BLOCK_BYTES), b""):
            yield len(block)


def _seconds(work: Callable[[], Any], device: torch.device, budget_s: float = _BUDGET_S) -> float:
    """Return the median seconds of a call: as many as fit into the budget, the first only where it is the last."""
    if device.type == "cuda":  # which compiles and tunes in its first call, however long that takes
        work()
        _wait_for(device)
    spent, until_s = [], time.perf_counter() + budget_s
    while len(spent) < _MAX_CALLS and (not spent or time.perf_counter() < until_s):
        _wait_for(device)
        start_s = time.perf_counter()
        work()
        _wait_for(device)
        spent.append(time.perf_counter() - start_s)
    return statistics.median(spent[1:] or spent)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _repeated(crops: torch.Tensor, count: int) -> torch.Tensor:
    return crops[torch.arange(count) % len(crops)]


def _name_of(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"

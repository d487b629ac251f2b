"""Does the cache's job keep up with its extractor, and training that reads the cache with training that extracts?

* writing: crops (or maps) per second of the function that Ray maps over the shards, against the extractor alone on the
  same windows, cut and in memory, in the same batches, in turns. The extractor has one thread; cutting and encoding, in
  another, cost no time by the clock where a core is idle, and their processor time where none is.
* training: what precedes a training step, for one batch: reading, cutting and decoding, and the semantics, with the
  preset rrdb_sed_p_x4's extractor. In turns: online, cached and mapped. The step itself, which is given its semantics,
  is the same for all three; it is timed for the share.

Run:
    python benchmarks/feature_cache.py --photos DIR
    python benchmarks/feature_cache.py --photos DIR --architecture timm:tf_efficientnet_lite0 --weights package
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _origin import add_json_argument, extremes, publish, speed_up
from _shards import write_classical
from _steps import build_our_step
from _tables import Column, Row, label, ratio, row_of, seconds

from jobs.command_line import PRESETS
from pipeline.config.schema import DataConfig, Preset, SemanticsConfig
from pipeline.data.datasets import image_manifest
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from pipeline.inference.feature_batches import batch_samples, cut_windows
from pipeline.inference.features import FeatureTask, plan_features, write_feature_dataset, write_features
from pipeline.inference.semantics import build_extractor
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.run.inputs import SemanticSource, StepInputs
from pipeline.runtime.host_memory import keep_freed_memory
from shards.read.reader import ShardSet
from shards.write.execution import SERIAL

CPU = torch.device("cpu")
SOURCES = ("cached", "mapped")
WRITING = (
    label("features"),
    label("mode"),
    label("side"),
    Column("features/s", ".2f", "higher"),
    ratio("of the extractor's"),
    seconds("CPU ms per feature", ".1f"),
    ratio("of the extractor's, by CPU"),
)
TRAINING = (
    label("features"),
    label("batch"),
    label("semantics"),
    seconds("inputs, s per step", ".3f"),
    ratio("of online's", "lower", ".3f"),
    seconds("with the step, s"),
    ratio("of online's step", "lower", ".3f"),
)


def in_turns(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return seconds per item of each way, by the clock and on the CPU; a way returns the number of its items."""
    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for repeat in range(repeats + 1):  # the first does not count
        for name, way in ways.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            num_items = way()
            if repeat:
                wall, cpu = spent[name]
                wall.append((time.perf_counter() - start) / num_items)
                cpu.append((time.process_time() - start_cpu) / num_items)
    return spent


def extract_alone(extractor: SemanticExtractor, groups: list[torch.Tensor]) -> int:
    """Extract the features of batches in memory."""
    with torch.inference_mode():
        return sum(len(extractor(group)) for group in groups)


def windows_of(task: FeatureTask) -> list[torch.Tensor]:
    """Return what the extractor sees of a shard, in the batches of the job."""
    images, size = ShardSet.open(task.images), batch_samples(task.settings, CPU)
    cut = [cut_windows(one, task.settings, images.manifest.images) for one in images.samples_of(task.number)]
    whole = torch.from_numpy(np.concatenate(cut)).permute(0, 3, 1, 2).float() / 255
    return list(whole.split(size * task.settings.num_variants))


def write_once(task: FeatureTask, folder: Path) -> int:
    """Write one tar of features."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        entry = write_features(dataclasses.replace(task, output=Path(output)))
        return entry.num_samples * task.settings.num_variants


def measure_writing(
    data: DataConfig, semantics: SemanticsConfig, folder: Path, name: str, repeats: int
) -> Iterator[Row]:
    """Yield the rows of each mode."""
    extractor = build_extractor(semantics, data.crop_px)
    for source in SOURCES:
        stored = dataclasses.replace(semantics, source=source)
        task = plan_features(folder / source, data, stored, extractor)[0]
        groups = windows_of(task)
        ways = {
            "the extractor alone": functools.partial(extract_alone, extractor, groups),
            "the job": functools.partial(write_once, task, folder),
        }
        spent = in_turns(ways, repeats)
        alone = spent["the extractor alone"]
        for side, (wall, cpu) in spent.items():
            rates = [1 / value for value in wall]
            share, by_clock = speed_up(alone[0], wall)
            share_by_cpu, by_cpu = speed_up(alone[1], cpu)
            cpu_ms = 1e3 * statistics.median(cpu)
            yield row_of(
                WRITING, name, task.settings.mode, side, statistics.median(rates), share, cpu_ms, share_by_cpu,
                spread={
                    "features/s": extremes(rates), "of the extractor's": by_clock, "of the extractor's, by CPU": by_cpu
                },
                targets={"of the extractor's": 0.9} if side == "the job" else {},
            )  # fmt: skip


def inputs_of(data: DataConfig, semantics: SemanticsConfig, extractor: SemanticExtractor) -> Callable[[], int]:
    """Return a function that prepares the next step, as the training loop does in a process without workers."""
    features = None if semantics.mode is None else semantics.cache
    trained_with = extractor if semantics.mode is None else None
    source = SemanticSource(trained_with, extractor.channels, extractor.weights_sha256, "")
    prepare = StepInputs(source, contextlib.nullcontext, torch.channels_last)
    samples = TrainingSamples(data, 0, features)
    loader = iter(batches(samples, RankBatches(0, 10**6, data.batch_size, 0, 1), 0, pin_memory=False))

    def prepare_next() -> int:
        prepare(next(loader), is_adversarial=True)
        return 1

    return prepare_next


def measure_training(
    data: DataConfig, semantics: SemanticsConfig, folder: Path, name: str, repeats: int
) -> Iterator[Row]:
    """Yield the rows of each source of semantics."""
    extractor = build_extractor(semantics, data.crop_px)
    sources = {"online": semantics}
    for source in SOURCES:
        sources[source] = dataclasses.replace(semantics, source=source, cache=folder / f"{source}-all")
        tasks = plan_features(sources[source].cache, data, sources[source], extractor)
        write_feature_dataset(sources[source].cache, tasks, SERIAL, num_gpus=0)
    spent = in_turns({name: inputs_of(data, one, extractor) for name, one in sources.items()}, repeats)
    step_s = seconds_of_step(data)
    before = {source: statistics.median(wall) for source, (wall, _) in spent.items()}
    for source, (values, _) in spent.items():
        share = before[source] / before["online"]
        of_step = (before[source] + step_s) / (before["online"] + step_s)
        yield row_of(
            TRAINING, name, data.batch_size, source, before[source], share, before[source] + step_s, of_step,
            spread={"inputs, s per step": extremes(values)},
        )  # fmt: skip


def seconds_of_step(data: DataConfig) -> float:
    """Return the median seconds of the preset's step, full size, in float32, after a first one."""
    options = argparse.Namespace(
        device="cpu", batch=data.batch_size, crop_px=data.crop_px, blocks=23, reference=None, precision="float32",
        compile=False, cuda_graphs=False, schedule="separate",
    )  # fmt: skip
    step = build_our_step("P+SeD", options)
    return statistics.median(in_turns({"step": lambda: len([step()])}, 3)["step"][0])


def main() -> None:
    """Write shards and caches, measure, publish the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of 480 px or more")
    parser.add_argument("--parts", nargs="+", choices=("writing", "training"), default=["writing", "training"])
    parser.add_argument("--architecture", default="open_clip:RN50")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--crop-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1, help="of the training step")
    parser.add_argument("--shard-mib", type=float, default=8.0, help="the part `writing` writes one shard's features")
    parser.add_argument("--repeats", type=int, default=5)
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    keep_freed_memory()  # as job and trainer do
    train = PRESETS.load("rrdb_sed_p_x4", Preset).train
    semantics = dataclasses.replace(
        train.semantics, architecture=options.architecture, layer=options.layer, weights=options.weights
    )
    name = f"{options.architecture} layer {options.layer}, {options.weights}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_classical(options.photos, folder / "shards", shard_mib=options.shard_mib)
        size = {"crop_px": options.crop_px, "canvas_px": options.crop_px, "batch_size": options.batch}
        data = dataclasses.replace(train.data, shards=folder / "shards", num_workers=0, **size)
        images = image_manifest(data.shards)
        print(f"{images.num_samples} sub-images in {len(images.shards)} shards")
        arguments = (data, semantics, folder, name, options.repeats)
        if "writing" in options.parts:
            publish("feature-writing", WRITING, list(measure_writing(*arguments)), options)
        if "training" in options.parts:
            publish("feature-training", TRAINING, list(measure_training(*arguments)), options)


if __name__ == "__main__":
    main()

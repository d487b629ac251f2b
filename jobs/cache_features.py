"""Compute the semantic features of every crop that training will cut, with Ray, and keep them beside the shards.

The features are bound to their shards, crop, extractor and weights by hash: training refuses a cache that belongs to
something else. Run it again: finished tars are kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jobs.ray_tasks import ray_session
from jobs.terminal import run_job, say
from pipeline.config.presets import apply_flags, load_preset, preset_names, split_preset
from pipeline.config.schema import DataConfig, SemanticsConfig, TrainConfig
from pipeline.data.features import FeatureStore, has_features, image_manifest
from pipeline.inference.features import FeatureTask, plan_features, write_feature_dataset
from pipeline.inference.semantics import build_extractor
from shards.format.files import check_writable
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class CacheConfig:
    """What to compute; the preset's training tables give the values."""

    shards: StoragePath
    """Folder or URL written by jobs/shard.py."""
    output: StoragePath
    """Folder or URL (s3://bucket/prefix) for the features."""
    weights: str
    """openai (downloaded by open_clip), a file, or random (seeded: for demos and tests only)."""
    crop_px: int
    """Side of the HR crop; the training run's."""
    architecture: str
    """Frozen vision model; the paper's is clip-rn50."""
    layer: int
    """Stage whose output is used; the paper's is 3."""
    seed: int
    """Seed of random weights."""
    num_gpus_per_task: float
    """GPUs that each task takes; fractions share one."""
    cache_dir: Path
    """Folder on a disk of each machine for copies of shards that lie at a URL."""
    cache_gib: float
    """What the copies may take."""

    def applied_to(self, train: TrainConfig) -> tuple[DataConfig, SemanticsConfig]:
        """Return the preset's data and semantics with these settings."""
        data = replace(
            train.data,
            shards=self.shards,
            crop_px=self.crop_px,
            canvas_px=max(self.crop_px, train.data.canvas_px),  # for real-world shards, whose features are not cached
            cache_dir=self.cache_dir,
            cache_gib=self.cache_gib,
        )
        return data, SemanticsConfig("cached", self.output, self.architecture, self.layer, self.weights, self.seed)


def from_preset(train: TrainConfig) -> CacheConfig:
    """Return the cache that a training configuration would read."""
    semantics = train.semantics
    return CacheConfig(
        shards=train.data.shards,
        output=semantics.cache,
        weights=semantics.weights,
        crop_px=train.data.crop_px,
        architecture=semantics.architecture,
        layer=semantics.layer,
        seed=semantics.seed,
        num_gpus_per_task=1.0 if torch.cuda.is_available() else 0.0,
        cache_dir=train.data.cache_dir,
        cache_gib=train.data.cache_gib,
    )


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/cache_features.py --help`."""
    name, flags = split_preset(argv)
    description = (
        "Cache the semantic features of every seeded crop; run again, it finishes what is missing.\n\n"
        f"Preset: {name} (first argument; known: {', '.join(preset_names())})"
    )
    train = load_preset(name).train
    config, dry_run = apply_flags(from_preset(train), flags, "python jobs/cache_features.py [PRESET]", description)
    data, semantics = config.applied_to(train)
    image_manifest(data.shards)  # before the extractor is built: missing shards are the most common mistake
    extractor = build_extractor(semantics)
    tasks = plan_features(config.output, data, semantics, extractor)
    num_samples = sum(task.image_shard.num_samples for task in tasks)
    size_mib = num_samples * _sample_bytes(tasks) / 2**20
    say(
        f"{num_samples} samples x {tasks[0].settings.num_variants} variants; {extractor.description}; "
        f"about {size_mib:.1f} MiB in {config.output}"
    )
    if config.weights == "random":
        say("note: the extractor has seeded random weights; with the real ones: --weights openai")
    if dry_run:
        say("dry run: nothing was written")
        return 0
    check_writable(config.output)
    if has_features(config.output):
        FeatureStore(config.output, data.cache).require(tasks[0].settings)
    with ray_session() as session:
        say(f"using {session.description}")
        write_feature_dataset(config.output, tasks, session.executor, num_gpus=config.num_gpus_per_task)
    return 0


def _sample_bytes(tasks: list[FeatureTask]) -> int:
    channels, height, width = tasks[0].settings.shape
    return 2 * channels * height * width * tasks[0].settings.num_variants


if __name__ == "__main__":
    sys.exit(run_job(main))

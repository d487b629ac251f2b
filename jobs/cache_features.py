"""Compute the semantic features of every crop that training will cut, with Ray, and keep them beside the shards.

The features are bound to their shards, crop, extractor and weights by hash: training refuses a cache that belongs to
something else. Run it again: finished tars are kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.ray_tasks import RaySession, ray_session
from jobs.terminal import Progress, run_job, say
from pipeline.config.presets import apply_flags, load_preset, preset_names, split_preset
from pipeline.config.schema import SemanticsConfig, TrainConfig
from pipeline.data.features import FeatureStore, has_features, image_manifest
from pipeline.inference.build import build_extractor
from pipeline.inference.features import FeatureTask, feature_identity, write_features
from pipeline.models import SemanticExtractor
from shards.format.documents import digest_of
from shards.format.files import check_writable, clean_stale
from shards.format.manifest import Manifest, write_manifest
from shards.format.sidecars import ShardEntry, find_all_finished
from shards.format.storage import StoragePath
from shards.read.cache import ShardCache

_WORKER_BYTES = 1500 * 2**20


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

    @property
    def semantics(self) -> SemanticsConfig:
        """The extractor's settings."""
        return SemanticsConfig("cached", self.output, self.architecture, self.layer, self.weights, self.seed)

    @property
    def copies(self) -> ShardCache:
        """Where copies of remote shards are kept."""
        return ShardCache(self.cache_dir, int(self.cache_gib * 2**30))


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
    default = from_preset(load_preset(name).train)
    config, dry_run = apply_flags(default, flags, "python jobs/cache_features.py [PRESET]", description)
    images = image_manifest(config.shards)
    extractor = build_extractor(config.semantics)
    tasks = plan(config, images, extractor)
    size_mib = images.num_samples * _sample_bytes(tasks) / 2**20
    say(
        f"{images.num_samples} samples x {tasks[0].identity.num_variants} variants; {extractor.description}; "
        f"about {size_mib:.1f} MiB in {config.output}"
    )
    if config.weights == "random":
        say("note: the extractor has seeded random weights; with the real ones: --weights openai")
    if dry_run:
        say("dry run: nothing was written")
        return 0
    check_writable(config.output)
    if has_features(config.output):
        FeatureStore(config.output, config.copies).require(tasks[0].identity)
    with ray_session() as session:
        say(f"using {session.description}")
        write(config, tasks, session)
    return 0


def plan(config: CacheConfig, images: Manifest, extractor: SemanticExtractor) -> list[FeatureTask]:
    """Return one task for every image shard."""
    identity = feature_identity(images, config.semantics, extractor, config.crop_px)
    return [
        FeatureTask(
            config.shards.resolve(),
            entry,
            number,
            config.output.resolve(),
            config.semantics,
            identity,
            int(images.config["seed"]),
            config.copies,
        )
        for number, entry in enumerate(images.shards)
    ]


def _sample_bytes(tasks: list[FeatureTask]) -> int:
    channels, height, width = tasks[0].identity.shape
    return 2 * channels * height * width * tasks[0].identity.num_variants


def write(config: CacheConfig, tasks: list[FeatureTask], session: RaySession) -> Manifest:
    """Write what is missing, and the manifest last."""
    config.output.mkdir(parents=True, exist_ok=True)
    clean_stale(config.output)
    entries = find_all_finished(config.output, {task.name: task.header for task in tasks})
    if entries:
        say(f"reusing {len(entries)} of {len(tasks)} feature tars")
    missing = [task for task in tasks if task.name not in entries]
    if missing:
        _write_missing(config, missing, entries, session)
    header = tasks[0].identity.to_header()
    manifest = Manifest(
        kind="features",
        fingerprint=digest_of(header),
        config=header,
        shards=tuple(entries[task.name] for task in tasks),
    )
    write_manifest(config.output, manifest)
    say(f"{config.output}: {manifest.num_samples} samples, {manifest.size_bytes / 2**20:.1f} MiB")
    return manifest


def _write_missing(
    config: CacheConfig, missing: list[FeatureTask], entries: dict[str, ShardEntry], session: RaySession
) -> None:
    with Progress("caching features", sum(task.image_shard.num_samples for task in missing), "samples") as progress:
        for task, entry in session.map(
            write_features, missing, num_gpus=config.num_gpus_per_task, memory_bytes=_WORKER_BYTES
        ):
            entries[task.name] = entry
            progress.advance(entry.num_samples, size_bytes=entry.size_bytes)
    clean_stale(config.output)  # of workers that were killed on the way


if __name__ == "__main__":
    sys.exit(run_job(main))

"""Compute the semantic features of every crop that training draws, or of sub-images, with Ray, beside the shards.

The features are bound to their shards, crop, extractor and weights by hash: training refuses a cache that belongs to
something else. Rerun the same command to finish what is missing; finished tars are kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

from jobs.command_line import PRESETS, CommandLine
from jobs.terminal import run_job
from pipeline.config.schema import DataConfig, Preset, SemanticsConfig
from pipeline.errors import ConfigError
from pipeline.progress import say
from shards.format.storage import StoragePath

COMMAND = CommandLine(
    "python jobs/cache_features.py",
    "Cache the semantic features of every crop that training draws, for classical shards; optional. Rerun the same\n"
    "command to finish what is missing.",
    (
        "rrdb_sed_p_x4 --shards data/shards/df2k_x4 --output data/features/df2k_x4 --weights pretrained",
        "rrdb_sed_p_x4 --dry-run  # how large it will be",
        "rrdb_sed_p_x4 --semantics.source mapped --output data/features/maps  # a map of each sub-image: approximate",
    ),
)


@dataclass(frozen=True)
class CacheFeaturesConfig:
    """The training run's data and semantics, with short flags for the three settings that people change."""

    data: DataConfig
    semantics: SemanticsConfig
    shards: StoragePath | None = None
    """Short for --data.shards: folder or URL written by jobs/shard.py."""
    output: StoragePath | None = None
    """Short for --semantics.cache: folder or URL (s3://bucket/prefix) for the features."""
    weights: str | None = None
    """Short for --semantics.weights: pretrained, package, a file, or random (seeded: for demos and tests only)."""
    codec: str | None = None
    """How a feature is stored: fp16, fp16-zstd, uint8, uint8-zstd, pca64 or pca128 (docs/features.md); by default that
    of the cache in `output`, where one is begun, else uint8-zstd."""
    num_gpus_per_task: float | None = None
    """GPUs per task, a fraction to share one; by default 1 where this machine has a GPU, else 0."""

    def resolve(self) -> tuple[DataConfig, SemanticsConfig]:
        """Return data and semantics with the short flags applied."""
        data = self.data if self.shards is None else replace(self.data, shards=self.shards)
        semantics = replace(
            self.semantics,
            source=_stored(self.semantics.source),
            cache=self.semantics.cache if self.output is None else self.output,
            weights=self.semantics.weights if self.weights is None else self.weights,
        )
        return data, semantics


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/cache_features.py --help`."""
    call = COMMAND.parse_preset(argv, _from_preset)
    data, semantics = call.config.resolve()
    if data.why_not_cached is not None:
        raise ConfigError(f"no run of this configuration would read the cache: {data.why_not_cached}")

    from pipeline.data.datasets import image_manifest
    from pipeline.data.features import FeatureStore, has_features
    from shards.format.codecs import CODECS

    if call.config.codec is not None:
        CODECS.check(call.config.codec)

    image_manifest(data.shards)  # before torch is imported: missing shards are the most common mistake

    from jobs.ray_tasks import ray_session
    from pipeline.inference.device import best_device
    from pipeline.inference.features import fit_codec, plan_features, write_feature_dataset
    from pipeline.inference.semantics import build_extractor
    from shards.format.files import check_writable

    extractor = build_extractor(semantics, data.crop_px)
    tasks = plan_features(semantics.cache, data, semantics, extractor, call.config.codec)
    settings = tasks[0].settings
    num_samples = sum(task.image_shard.num_samples for task in tasks)
    size_mib = num_samples * settings.num_variants * settings.max_member_bytes / 2**20
    say(
        f"{num_samples} samples x {settings.num_variants} variants; {extractor.description}; "
        f"{settings.codec}, at most {size_mib:.1f} MiB in {semantics.cache}"
    )
    if semantics.weights == "random":
        say("note: the extractor has seeded random weights; for the real ones: --weights pretrained")
    if call.dry_run:
        say("dry run: nothing was written")
        return 0
    check_writable(semantics.cache)
    if has_features(semantics.cache):
        store = FeatureStore(semantics.cache, data.cache)
        store.require(settings)
        # One of an earlier version keeps the names that its headers have: what is finished stays.
        tasks = [replace(task, settings=store.settings) for task in tasks]
    else:
        semantics.cache.mkdir(parents=True, exist_ok=True)
        tasks = fit_codec(tasks, extractor)
    num_gpus = call.config.num_gpus_per_task
    if num_gpus is None:
        num_gpus = float(best_device().type == "cuda")
    with ray_session() as session:
        say(f"using {session.description}")
        write_feature_dataset(semantics.cache, tasks, session.executor, num_gpus=num_gpus)
    return 0


def _from_preset(name: str) -> CacheFeaturesConfig:
    train = PRESETS.load(name, Preset).train
    # Explicit: `auto` would look for the cache that this job is about to write.
    return CacheFeaturesConfig(train.data, replace(train.semantics, source=_stored(train.semantics.source)))


def _stored(source: str) -> Literal["cached", "mapped"]:
    return "mapped" if source == "mapped" else "cached"


if __name__ == "__main__":
    sys.exit(run_job(main))

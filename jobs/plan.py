"""Print what semantic features cost on a given cluster: computed every step (online), or read from a cache.

Sizes come from the shards' manifest, speeds from flags: measure them with a short run of each kind
(`speed/images_per_second`). The third way, one map a sub-image that is cut for each crop, is not there yet. Nothing is
read but the manifest, and nothing is written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from jobs.terminal import run_job
from pipeline.config.presets import apply_flags, load_preset, preset_names, split_preset
from pipeline.config.schema import TrainConfig
from pipeline.data.features import image_manifest
from pipeline.errors import positive, refuse
from pipeline.inference.semantics import semantic_channels
from shards.format.manifest import Manifest
from shards.format.storage import StoragePath

_STRIDE_PX = 16
_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class ClusterConfig:
    """The run and the machines."""

    shards: StoragePath
    """Folder or URL written by jobs/shard.py."""
    crop_px: int
    """Side of the HR crop."""
    architecture: str
    """Frozen vision model."""
    layer: int
    """Stage whose output is used."""
    total_images: int
    """Length of the run."""
    num_nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs of each machine."""
    step_images_per_second: float = 10.0
    """Images a second that one GPU trains on when the semantics are there already."""
    extractor_images_per_second: float = 400.0
    """Crops a second that one GPU extracts features of."""
    read_mb_per_second: float = 2000.0
    """What each machine reads from where the cache lies, in 10^6 bytes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        amounts = positive(
            num_nodes=self.num_nodes,
            gpus_per_node=self.gpus_per_node,
            step_images_per_second=self.step_images_per_second,
            extractor_images_per_second=self.extractor_images_per_second,
            read_mb_per_second=self.read_mb_per_second,
        )
        refuse(amounts)


@dataclass(frozen=True)
class Trade:
    """What both ways cost; times of the whole run on the whole cluster."""

    feature_bytes: int
    """Of one crop."""
    cache_bytes: int
    """Of all samples and variants."""
    online_hours: float
    fill_hours: float
    """To write the cache."""
    cached_hours: float
    """To train from it, after it is written."""
    is_read_bound: bool
    """Whether reading the cache, not training, sets the pace."""


def weigh(cluster: ClusterConfig, images: Manifest, channels: int) -> Trade:
    """Weigh both ways.

    Args:
        cluster: The run and the machines.
        images: The image shards; each sample has as many cached variants as it has recorded seeds.
        channels: Of the semantics.
    """
    side = cluster.crop_px // _STRIDE_PX
    feature_bytes = _FLOAT16_BYTES * channels * side * side
    num_crops = images.num_samples * images.images.variants
    num_gpus = cluster.num_nodes * cluster.gpus_per_node
    sample_bytes = images.size_bytes / images.num_samples
    # On each machine; an image is read with its feature.
    readable = cluster.read_mb_per_second * 1e6 / (feature_bytes + sample_bytes)
    trainable = cluster.gpus_per_node * cluster.step_images_per_second
    online = 1 / (1 / cluster.step_images_per_second + 1 / cluster.extractor_images_per_second)
    return Trade(
        feature_bytes=feature_bytes,
        cache_bytes=feature_bytes * num_crops,
        online_hours=cluster.total_images / (num_gpus * online) / 3600,
        fill_hours=num_crops / (num_gpus * cluster.extractor_images_per_second) / 3600,
        cached_hours=cluster.total_images / (cluster.num_nodes * min(readable, trainable)) / 3600,
        is_read_bound=readable < trainable,
    )


def describe(cluster: ClusterConfig, images: Manifest, trade: Trade) -> str:
    """Return the trade as text."""
    variants = images.images.variants
    cached_hours = trade.fill_hours + trade.cached_hours
    better = "cached" if cached_hours < trade.online_hours else "online"
    pace = "reading sets the pace" if trade.is_read_bound else "training sets the pace"
    return "\n".join(
        [
            f"{images.num_samples:,} samples, {cluster.total_images / images.num_samples:.1f} epochs, "
            f"{cluster.num_nodes} machine(s) of {cluster.gpus_per_node} GPU(s)",
            f"online   {trade.online_hours:,.1f} h, nothing stored, a new crop every epoch",
            f"cached   {cached_hours:,.1f} h, of which {trade.fill_hours:,.2f} h to write "
            f"{trade.cache_bytes / 2**30:,.1f} GiB ({trade.feature_bytes / 2**10:,.0f} KiB a crop, {variants} crop(s) "
            f"a sample, the same ones again every {variants} epoch(s)); {pace}",
            f"{better} is faster by {abs(trade.online_hours - cached_hours):,.1f} h "
            f"({abs(trade.online_hours - cached_hours) / trade.online_hours:.1%})",
        ]
    )


def from_preset(train: TrainConfig) -> ClusterConfig:
    """Return the question for a training configuration, on machines that the flags describe."""
    data, semantics = train.data, train.semantics
    return ClusterConfig(
        data.shards, data.crop_px, semantics.architecture, semantics.layer, train.schedule.total_images
    )


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/plan.py --help`."""
    name, flags = split_preset(argv)
    description = (
        "What semantic features cost, online and cached.\n\n"
        f"Preset: {name} (first argument; known: {', '.join(preset_names())})"
    )
    train = load_preset(name).train
    cluster, _ = apply_flags(from_preset(train), flags, "python jobs/plan.py [PRESET]", description)
    images = image_manifest(cluster.shards)
    channels = semantic_channels(replace(train.semantics, architecture=cluster.architecture, layer=cluster.layer))
    sys.stdout.write(describe(cluster, images, weigh(cluster, images, channels)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))

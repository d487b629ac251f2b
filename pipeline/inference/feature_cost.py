"""What semantic features cost on a cluster: computed in every step (online), or read from a cache.

Sizes come from the shards' manifest; throughputs are the user's measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import positive, refuse
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.format.manifest import Manifest

_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Cluster:
    """The machines and their throughputs."""

    num_nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs per machine."""
    step_images_per_second: float = 10.0
    """Training throughput of one GPU when the semantics are given, images/s."""
    extractor_images_per_second: float = 400.0
    """Throughput of the semantic extractor on one GPU, crops/s."""
    read_mb_per_second: float = 2000.0
    """Read bandwidth per machine from the cache's storage, in 10^6 bytes/s."""

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(
            positive(
                num_nodes=self.num_nodes,
                gpus_per_node=self.gpus_per_node,
                step_images_per_second=self.step_images_per_second,
                extractor_images_per_second=self.extractor_images_per_second,
                read_mb_per_second=self.read_mb_per_second,
            )
        )


@dataclass(frozen=True)
class FeatureCost:
    """The cost of both ways; times are those of the whole run on the whole cluster."""

    feature_bytes: int
    """Size of the features of one crop."""
    cache_bytes: int
    """Size of the cache: all samples and variants."""
    online_hours: float
    """Training with the extractor in every step."""
    fill_hours: float
    """Writing the cache."""
    cached_hours: float
    """Training from the cache, once it is written."""
    is_read_bound: bool
    """Whether reading the cache limits the throughput, rather than training."""


def estimate(cluster: Cluster, images: Manifest, *, crop_px: int, total_images: int, channels: int) -> FeatureCost:
    """Estimate both ways.

    Args:
        cluster: The machines.
        images: The image shards; each sample has as many cached variants as it has recorded seeds.
        crop_px: Side of the HR crop.
        total_images: Length of the run.
        channels: Number of channels of the semantics.
    """
    side = crop_px // SEMANTIC_STRIDE_PX
    feature_bytes = _FLOAT16_BYTES * channels * side * side
    num_crops = images.num_samples * images.images.variants
    num_gpus = cluster.num_nodes * cluster.gpus_per_node
    sample_bytes = images.size_bytes / images.num_samples
    # Per machine, which reads an image with its features.
    readable = cluster.read_mb_per_second * 1e6 / (feature_bytes + sample_bytes)
    trainable = cluster.gpus_per_node * cluster.step_images_per_second
    online = 1 / (1 / cluster.step_images_per_second + 1 / cluster.extractor_images_per_second)
    return FeatureCost(
        feature_bytes=feature_bytes,
        cache_bytes=feature_bytes * num_crops,
        online_hours=total_images / (num_gpus * online) / 3600,
        fill_hours=num_crops / (num_gpus * cluster.extractor_images_per_second) / 3600,
        cached_hours=total_images / (cluster.num_nodes * min(readable, trainable)) / 3600,
        is_read_bound=readable < trainable,
    )


def describe(cost: FeatureCost, cluster: Cluster, images: Manifest, total_images: int) -> str:
    """Return the comparison as text."""
    variants = images.images.variants
    cached_hours = cost.fill_hours + cost.cached_hours
    better = "cached" if cached_hours < cost.online_hours else "online"
    limit = "reading" if cost.is_read_bound else "training"
    saved_hours = abs(cost.online_hours - cached_hours)
    return "\n".join(
        [
            f"{images.num_samples:,} samples, {total_images / images.num_samples:.1f} epochs, "
            f"{cluster.num_nodes} machine(s) of {cluster.gpus_per_node} GPU(s)",
            f"online   {cost.online_hours:,.1f} h, nothing stored, a new crop in every epoch",
            f"cached   {cached_hours:,.1f} h, of which {cost.fill_hours:,.2f} h to write "
            f"{cost.cache_bytes / 2**30:,.1f} GiB ({cost.feature_bytes / 2**10:,.0f} KiB per crop, {variants} crop(s) "
            f"per sample, repeated every {variants} epoch(s)); {limit} limits the throughput",
            f"{better} is faster by {saved_hours:,.1f} h ({saved_hours / cost.online_hours:.1%})",
        ]
    )

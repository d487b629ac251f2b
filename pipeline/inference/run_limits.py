"""What of a cluster a run breaks first, with the remedy; and all of it as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.inference.run_scale import DAY_S, SAMPLES_PER_PHOTO, RunScale
from shards.format.documents import MAX_DOCUMENT_BYTES
from shards.write.plan import MAX_SHARDS

_IMAGES_PER_GPU = 8
_MOST_LOST = 0.1
_SUGGESTED_WINDOW = 64


@dataclass(frozen=True)
class Limit:
    """One thing that a run needs, and how much there is of it."""

    name: str
    needed: float
    available: float
    unit: str
    remedy: str

    @property
    def load(self) -> float:
        """What is needed of what there is; above 1 it breaks."""
        return self.needed / self.available

    def __str__(self) -> str:
        return f"{self.name}: {self.needed:,.4g} of {self.available:,.4g} {self.unit}"


def limits_of(scale: RunScale) -> list[Limit]:
    """Return what may break, what is loaded most first."""
    limits = [*_sharding_limits(scale), *_reading_limits(scale), *_training_limits(scale)]
    return sorted(limits, key=lambda limit: -limit.load)


def _sharding_limits(scale: RunScale) -> Iterator[Limit]:
    several = "several datasets in data.mix"
    yield Limit("shards", scale.dataset.num_shards, MAX_SHARDS, "that names can number", "a larger --shard-size-mib")
    generations = f"{several}, or photos added in generations, each with a plan of its own"
    yield Limit("plan file", scale.plan_bytes / 2**20, MAX_DOCUMENT_BYTES / 2**20, "MiB", generations)
    yield Limit("driver memory", scale.driver_bytes / 2**30, scale.cluster.driver_gib, "GiB", several)


def _reading_limits(scale: RunScale) -> Iterator[Limit]:
    data, run, cluster = scale.dataset, scale.training, scale.cluster
    if not run.window_shards:
        each = "copies a whole shard" if data.is_remote else "reads its shard's sidecar"
        remedy = f"--data.window-shards {_SUGGESTED_WINDOW}: without windows every image {each}"
    elif data.is_remote:
        remedy = "shards on a file system that all machines read: each machine copies nearly every shard"
    else:
        remedy = "storage that serves more, or fewer machines"
    yield Limit("bandwidth", scale.read_mb_per_second, run.read_mb_per_second, "MB/s per machine", remedy)
    yield Limit("requests", scale.requests_per_second, cluster.requests_per_second, "per second on storage", remedy)
    smaller = "a larger --shard-size-mib, or fewer data.num_workers"
    yield Limit("machine memory", scale.node_bytes / 2**30, cluster.node_gib, "GiB for manifests", smaller)


def _training_limits(scale: RunScale) -> Iterator[Limit]:
    run, cluster = scale.training, scale.cluster
    batch = f"--data.batch-size {_IMAGES_PER_GPU * cluster.num_gpus}, {_IMAGES_PER_GPU} images per GPU"
    yield Limit("batch", cluster.num_gpus, run.batch_size, "images per step, one per process at least", batch)
    lazy = "TORCH_GLOO_LAZY_INIT=1 for every rank: gloo connects each with all others otherwise"
    yield Limit(
        "open files",
        cluster.num_gpus + run.window_shards,
        cluster.open_files,
        "per process",
        f"ulimit -n 65536, or {lazy}",
    )
    yield Limit("rendezvous", scale.rendezvous_s, run.timeout_s, "s of runtime.timeout_s", f"{lazy} (docs/scale.md)")
    every = f"--report.checkpoint-every-images {scale.best_interval_s * scale.images_per_second:.0f} or so"
    yield Limit("checkpoint", scale.write_s, scale.checkpoint_s, "s between two", every)
    yield Limit("lost work", 100 * scale.lost_share(scale.checkpoint_s), 100 * _MOST_LOST, "% of the run", every)


def describe_scale(scale: RunScale) -> str:
    """Return what a run needs as text."""
    data, run, cluster = scale.dataset, scale.training, scale.cluster
    first, *others = limits_of(scale)
    breaking = [limit for limit in others if limit.load > 1]
    verdict = "breaks first" if first.load > 1 else "nothing breaks; nearest to its limit"
    return "\n".join(
        [
            f"scale: {data.num_samples:,} samples in {data.num_shards:,} shards of "
            f"{data.size_bytes / data.num_shards / 2**20:,.0f} MiB, {data.size_bytes / 1e12:,.2f} TB, "
            f"{'copied from an object store' if data.is_remote else 'read in place'}",
            f"cluster: {cluster.num_nodes:,} machine(s) of {cluster.gpus_per_node} GPU(s), "
            f"{scale.images_per_second:,.0f} images/s where nothing limits them",
            f"sharding: {data.num_photos:,.0f} photos of {SAMPLES_PER_PHOTO} samples, driver "
            f"{scale.driver_bytes / 2**30:,.2f} GiB, plan file {scale.plan_bytes / 2**20:,.0f} MiB, "
            f"{scale.resume_s / 3600:,.2f} core hours to find what is finished",
            f"reading: {scale.requests_per_second:,.0f} requests/s on storage; per machine "
            f"{scale.read_mb_per_second:,.1f} MB/s, and {scale.node_bytes / 2**30:,.2f} GiB for manifests",
            f"start: first batch after {scale.first_batch_s:,.1f} s, rendezvous {scale.rendezvous_s:,.1f} s",
            f"checkpoints: {run.checkpoint_bytes / 2**20:,.0f} MiB every {scale.checkpoint_s:,.0f} s "
            f"({run.checkpoint_every_images:,} images), {run.checkpoint_bytes / scale.checkpoint_s / 1e6:,.2f} MB/s, "
            f"pause {scale.pause_s:,.2f} s",
            f"failures: {scale.failures_per_day:,.3g} per day (a machine fails every "
            f"{cluster.hours_between_failures:,g} h), {scale.restart_s:,.0f} s from each to the next step",
            "",
            f"{'checkpoint every':<34}{'lost h/day':>12}{'lost images/day':>18}{'of the run':>12}",
            *(_interval_line(scale, seconds, name) for seconds, name in _intervals(scale)),
            "",
            f"{verdict}: {first}; {first.remedy}",
            *(f"breaks too: {limit}; {limit.remedy}" for limit in breaking),
        ]
    )


def _intervals(scale: RunScale) -> list[tuple[float, str]]:
    named = [(scale.checkpoint_s, "configured"), (scale.best_interval_s, "loses least")]
    return sorted([*named, (60.0, ""), (600.0, ""), (3_600.0, ""), (21_600.0, "")])


def _interval_line(scale: RunScale, interval_s: float, name: str) -> str:
    share = scale.lost_share(interval_s)
    images = interval_s * scale.images_per_second
    shown = f"{interval_s:,.0f} s, {images:,.0f} images"
    lost = share * DAY_S * scale.images_per_second
    return f"{shown:<34}{24 * share:>12.3f}{lost:>18,.0f}{share:>12.2%}{f'  {name}' if name else ''}"

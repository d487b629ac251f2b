"""What a whole run needs of a cluster: shards, requests, memory, time to the first batch, checkpoints, lost work.

Everything is arithmetic on the sizes of the dataset, the rates of `feature_cost`, and what one process was measured to
need per photo, shard and rank (`benchmarks/cluster_scale.py`; `docs/scale.md` says which figures are measured and
which assumed).

References:
    Young 1974, A first order approximation to the optimum checkpoint interval.
    Daly 2006, A higher order estimate of the optimum checkpoint interval for restart dumps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pipeline.errors import not_negative, positive, refuse
from pipeline.inference.feature_cost import Cluster
from shards.format.manifest import Manifest
from shards.format.settings import ImageSettings
from shards.write.plan import predict_sample_bytes

DAY_S = 86_400.0
# Measured by benchmarks/cluster_scale.py on one core: plan and manifest as they are made, sidecars as they are checked.
DRIVER_BYTES_PER_PHOTO = 2_650.0
DRIVER_BYTES_PER_SHARD = 2_170.0
PLAN_BYTES_PER_PHOTO = 294.0
MANIFEST_BYTES_PER_SHARD = 170.0
MANIFEST_S_PER_SHARD = 14e-6
RANK_BYTES_PER_SHARD = 1_740.0
SIDECAR_BYTES_PER_SAMPLE = 404.0
SIDECAR_S_PER_SAMPLE = 32e-6
GLOO_REQUESTS_PER_PAIR = 2
# What a rank reads of the store about each other one grows with their number: every rank publishes an address for each.
_GLOO_BYTES_PER_PAIR, _GLOO_BYTES_PER_RANK = 154.0, 8.0
# Measured on one core: a manifest's pickle to a loader process and back, what it takes there, requests to a store.
LOADER_BYTES_PER_SHARD = 500.0
LOADER_S_PER_SHARD = 3.7e-6
_STORE_REQUESTS_PER_S = 20_000.0
# benchmarks/checkpoint_pause.py: 371 MiB are copied in 0.05 s, and written in the background.
PAUSE_S_PER_BYTE = 0.05 / (371 * 2**20)
# Assumed: photos of 2K at the paper's stride, and a network of 10 Gbit/s to the store of the launcher.
SAMPLES_PER_PHOTO = 40
_STORE_BYTES_PER_S = 1.25e9
# A loader process keeps the indexes of shards with so many samples (`shards.read.reader`).
_INDEXED_SAMPLES = 500_000


@dataclass(frozen=True)
class LargeCluster(Cluster):
    """Machines with what limits a large run, and how often they fail."""

    hours_between_failures: float = 6_000.0
    """Mean time between failures of one machine, in hours. Default: 419 interruptions in 54 days of 2,048 machines
    (Llama 3)."""
    restart_minutes: float = 5.0
    """From a failure until processes have started again, in minutes; the first batch and the checkpoint come on top."""
    driver_gib: float = 64.0
    """Memory of the machine that runs jobs/shard.py, in GiB."""
    node_gib: float = 1_024.0
    """Memory of a training machine, in GiB."""
    requests_per_second: float = 5_500.0
    """Requests/s that the storage serves. Default: GET requests on one prefix of S3."""
    open_files: int = 1_024
    """Files and sockets that a process may open (ulimit -n)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        names = ("hours_between_failures", "driver_gib", "node_gib", "requests_per_second", "open_files")
        faults = positive(**{name: getattr(self, name) for name in names})
        refuse([*faults, *not_negative(restart_minutes=self.restart_minutes)])


@dataclass(frozen=True)
class DatasetSize:
    """A dataset, written or planned."""

    settings: ImageSettings
    num_samples: int
    num_shards: int
    size_bytes: float
    is_remote: bool
    """Whether whole shards are copied from an object store, rather than samples read in place."""

    @classmethod
    def of_manifest(cls, manifest: Manifest, *, is_remote: bool) -> DatasetSize:
        """Return that of shards that exist."""
        return cls(manifest.images, manifest.num_samples, len(manifest.shards), manifest.size_bytes, is_remote)

    @classmethod
    def planned(cls, num_samples: int, settings: ImageSettings, *, is_remote: bool) -> DatasetSize:
        """Return that of shards which are not written yet, by the plan's own estimate."""
        sample_bytes = predict_sample_bytes(settings)
        per_shard = max(1, int(settings.shard_size_mib * 2**20 / sample_bytes))
        return cls(settings, num_samples, math.ceil(num_samples / per_shard), num_samples * sample_bytes, is_remote)

    def with_samples(self, num_samples: int) -> DatasetSize:
        """Return that of so many samples like these."""
        num_shards = math.ceil(num_samples / self.samples_per_shard)
        size_bytes = num_samples * self.sample_bytes
        return replace(self, num_samples=num_samples, num_shards=num_shards, size_bytes=size_bytes)

    @property
    def sample_bytes(self) -> float:
        """What a sample takes in its tar."""
        return self.size_bytes / self.num_samples

    @property
    def samples_per_shard(self) -> float:
        """Samples of a shard, on average."""
        return self.num_samples / self.num_shards

    @property
    def num_photos(self) -> float:
        """Photos, by the number of sub-images that one is assumed to have."""
        return self.num_samples / SAMPLES_PER_PHOTO


@dataclass(frozen=True)
class Training:
    """What of a run's settings matters.

    Attributes:
        images_per_second: Throughput of one GPU, semantics included.
        read_mb_per_second: Of a machine, from the storage of shards and checkpoints, in 10^6 bytes/s.
        batch_size: Images per step over all GPUs.
        num_workers: Loader processes per GPU.
        window_shards: Shards read at a time; 0: all.
        cache_bytes: For copies of remote shards on each machine.
        checkpoint_bytes: Size of a checkpoint.
        checkpoint_every_images: Images between two.
        timeout_s: Of collectives.
    """

    images_per_second: float
    read_mb_per_second: float
    batch_size: int
    num_workers: int
    window_shards: int
    cache_bytes: float
    checkpoint_bytes: float
    checkpoint_every_images: int
    timeout_s: float


@dataclass(frozen=True)
class RunScale:
    """What a run needs, computed."""

    cluster: LargeCluster
    dataset: DatasetSize
    training: Training

    @property
    def images_per_second(self) -> float:
        """Throughput of all GPUs, where nothing else limits it."""
        return self.cluster.num_gpus * self.training.images_per_second

    # Sharding

    @property
    def driver_bytes(self) -> float:
        """Memory of the sharding driver: what it knows of photos and shards until the manifest is written."""
        return self.dataset.num_photos * DRIVER_BYTES_PER_PHOTO + self.dataset.num_shards * DRIVER_BYTES_PER_SHARD

    @property
    def plan_bytes(self) -> float:
        """Size of the plan's file, one generation."""
        return self.dataset.num_photos * PLAN_BYTES_PER_PHOTO

    @property
    def resume_s(self) -> float:
        """Processor seconds in which the driver finds the finished shards, once before and once after writing."""
        return 2 * self.dataset.num_samples * SIDECAR_S_PER_SAMPLE

    # Reading

    @property
    def num_loaders(self) -> int:
        """Processes of a machine that read shards."""
        return self.cluster.gpus_per_node * max(1, self.training.num_workers)

    @property
    def read_mb_per_second(self) -> float:
        """What a machine reads from storage, in 10^6 bytes/s."""
        return self._read_per_image[0] * self.images_per_second / self.cluster.num_nodes / 1e6

    @property
    def requests_per_second(self) -> float:
        """Requests of all machines on storage while they train."""
        return self._read_per_image[1] * self.images_per_second

    @property
    def _read_per_image(self) -> tuple[float, float]:
        """Bytes and requests on storage per image of the run."""
        data, nodes = self.dataset, self.cluster.num_nodes
        sidecar_bytes = data.samples_per_shard * SIDECAR_BYTES_PER_SAMPLE
        in_windows = 0 < self.training.window_shards < data.num_shards
        if data.is_remote:
            fits = data.size_bytes <= self.training.cache_bytes
            copies = self._opened_per_image(nodes) if in_windows or fits else 1.0
            return copies * (data.size_bytes / data.num_shards + sidecar_bytes), 2 * copies
        is_kept = in_windows or data.num_samples <= _INDEXED_SAMPLES
        sidecars = self._opened_per_image(nodes * self.num_loaders) if is_kept else 1.0
        return data.sample_bytes + sidecars * sidecar_bytes, 1 + sidecars

    def _opened_per_image(self, num_readers: int) -> float:
        """Return how many shards are opened per image, where each of some readers opens a shard once.

        The samples of a window are mixed over all readers, so of a shard with k samples a reader takes k / readers on
        average: of many of them none where there are many readers, and then every image opens a shard.
        """
        taken = self.dataset.samples_per_shard / num_readers
        return -math.expm1(-taken) / taken

    @property
    def node_bytes(self) -> float:
        """Memory of a machine for what its processes know of the shards: a manifest per rank and loader process."""
        per_rank = RANK_BYTES_PER_SHARD + self.training.num_workers * LOADER_BYTES_PER_SHARD
        return self.cluster.gpus_per_node * self.dataset.num_shards * per_rank

    @property
    def first_batch_s(self) -> float:
        """Seconds from the start of the processes to the first batch: manifest, loader processes, first shards."""
        data, shards = self.dataset, self.dataset.num_shards
        read_s = self.cluster.gpus_per_node * shards * MANIFEST_BYTES_PER_SHARD / self._bytes_per_s
        loaders_s = shards * LOADER_S_PER_SHARD * max(1, self.training.num_workers)
        images = self.training.batch_size / self.cluster.num_nodes
        unit_bytes = data.size_bytes / data.num_shards if data.is_remote else data.sample_bytes
        window = self.training.window_shards or shards
        units = min(images, window) if data.is_remote else images
        return read_s + shards * MANIFEST_S_PER_SHARD + loaders_s + units * unit_bytes / self._bytes_per_s

    @property
    def _bytes_per_s(self) -> float:
        return self.training.read_mb_per_second * 1e6

    @property
    def rendezvous_s(self) -> float:
        """Seconds in which all ranks learn each other's addresses for gloo's group, from one store."""
        ranks = self.cluster.num_gpus
        requests_s = GLOO_REQUESTS_PER_PAIR * ranks**2 / _STORE_REQUESTS_PER_S
        return requests_s + ranks**2 * (_GLOO_BYTES_PER_PAIR + _GLOO_BYTES_PER_RANK * ranks) / _STORE_BYTES_PER_S

    # Checkpoints and failures

    @property
    def checkpoint_s(self) -> float:
        """Seconds between two checkpoints, as configured."""
        return self.training.checkpoint_every_images / self.images_per_second

    @property
    def pause_s(self) -> float:
        """Seconds that a checkpoint stops training."""
        return self.training.checkpoint_bytes * PAUSE_S_PER_BYTE

    @property
    def write_s(self) -> float:
        """Seconds in which the leader writes a checkpoint in the background."""
        return self.training.checkpoint_bytes / self._bytes_per_s

    @property
    def failures_per_day(self) -> float:
        """Failures of any machine."""
        return self.cluster.num_nodes * 24 / self.cluster.hours_between_failures

    @property
    def restart_s(self) -> float:
        """From a failure to the next step; every rank reads the checkpoint."""
        loaded_s = self.cluster.gpus_per_node * self.training.checkpoint_bytes / self._bytes_per_s
        return 60 * self.cluster.restart_minutes + self.first_batch_s + loaded_s

    def lost_share(self, interval_s: float) -> float:
        """Return the share of a run that is lost with a checkpoint every so many seconds; 1 where nothing is left.

        A pause per interval, and per failure half of an interval and a restart.
        """
        per_failure = interval_s / 2 + self.restart_s
        return min(1.0, self.pause_s / interval_s + per_failure * self.failures_per_day / DAY_S)

    @property
    def best_interval_s(self) -> float:
        """Interval that loses least, by Daly; not shorter than writing takes."""
        return max(daly_interval_s(self.pause_s, DAY_S / self.failures_per_day), self.write_s)


def daly_interval_s(pause_s: float, between_failures_s: float) -> float:
    """Return the interval between checkpoints that loses least, in seconds (Daly 2006, equation 37).

    Args:
        pause_s: What a checkpoint costs.
        between_failures_s: Mean time between failures.
    """
    if pause_s >= 2 * between_failures_s:
        return between_failures_s
    ratio = pause_s / (2 * between_failures_s)
    return math.sqrt(2 * pause_s * between_failures_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - pause_s

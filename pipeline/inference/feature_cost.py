"""What semantic features cost on a cluster: computed in every step (online), or read from a cache.

Sizes come from the shards' manifest; rates from a profile of the machine, from flags, or, where neither has them, from
assumptions that are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.errors import not_negative, positive, refuse
from pipeline.inference.machine_profile import MachineProfile
from shards.format.codecs import CODECS, DEFAULT_CODEC, Shape
from shards.format.settings import ImageSettings

ONLINE, MAP = "online", "map"
_ASSUMED = {
    "step_images_per_second": 10.0,
    "extractor_images_per_second": 400.0,
    "read_mb_per_second": 2000.0,
}
_ASSUMED_LOADER_IMAGES_PER_S = 100.0
_ASSUMED_DECODE_IMAGES_PER_S = 1000.0
# Below this, new crops in every epoch are worth more than the time.
_LEAST_SAVING = 0.01


@dataclass(frozen=True)
class Cluster:
    """The machines and their rates; those that are not given come from the profile."""

    num_nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs per machine."""
    step_images_per_second: float | None = None
    """Training throughput of one GPU when the semantics are given, images/s."""
    extractor_images_per_second: float | None = None
    """Throughput of the semantic extractor on one GPU, crops/s."""
    read_mb_per_second: float | None = None
    """Read bandwidth per machine from the storage of shards and cache, in 10^6 bytes/s."""
    price_per_gpu_hour: float = 0.0
    """Price of a GPU per hour, in any currency; 0 where it does not matter."""

    def __post_init__(self) -> None:
        """Check ranges."""
        given = {name: getattr(self, name) for name in ("num_nodes", "gpus_per_node", *_ASSUMED)}
        faults = positive(**{name: value for name, value in given.items() if value is not None})
        refuse([*faults, *not_negative(price_per_gpu_hour=self.price_per_gpu_hour)])

    @property
    def num_gpus(self) -> int:
        """GPUs of all machines."""
        return self.num_nodes * self.gpus_per_node


@dataclass(frozen=True)
class Rates:
    """Every rate that an estimate needs; see `MachineProfile`.

    Attributes:
        assumed: Names of those that nobody gave or measured.
    """

    step_images_per_second: float
    extractor_images_per_second: float
    read_mb_per_second: float
    loader_images_per_second: float
    decode_images_per_second: Mapping[str, float]
    feature_bytes: Mapping[str, float]
    assumed: tuple[str, ...] = ()


def rates_of(cluster: Cluster, profile: MachineProfile | None, shape: Shape) -> Rates:
    """Return the rates of a cluster: as given, else as measured, else as assumed.

    Args:
        cluster: Has those that were given.
        profile: Has those that were measured.
        shape: (c, h, w) of a feature; without a profile its size is the most that a codec may need.
    """
    values, assumed = {}, []
    for name, default in _ASSUMED.items():
        value = getattr(cluster, name)
        if value is None:
            value = getattr(profile, name, None)
        if value is None:
            value = default
            assumed.append(f"{name} {default:g}")
        values[name] = value
    if profile is not None:
        return Rates(
            **values,
            loader_images_per_second=profile.loader_images_per_second,
            decode_images_per_second=profile.decode_images_per_second,
            feature_bytes=profile.feature_bytes,
            assumed=tuple(assumed),
        )
    assumed += [
        f"images read per loader process and second {_ASSUMED_LOADER_IMAGES_PER_S:g}",
        f"features decoded per CPU core and second {_ASSUMED_DECODE_IMAGES_PER_S:g}",
        "features that do not compress",
    ]
    codecs = [codec for codec in CODECS if not codec.is_fitted]
    return Rates(
        **values,
        loader_images_per_second=_ASSUMED_LOADER_IMAGES_PER_S,
        decode_images_per_second={codec.name: _ASSUMED_DECODE_IMAGES_PER_S for codec in codecs},
        feature_bytes={codec.name: float(codec.max_bytes(shape)) for codec in codecs},
        assumed=tuple(assumed),
    )


@dataclass(frozen=True)
class Work:
    """What is to be trained.

    Attributes:
        images: Settings of the image shards; each sample has as many cached variants as it has recorded seeds.
        num_samples: Samples of an epoch.
        sample_bytes: What a loader reads of an image.
        total_images: Length of the run.
        batch_size: Images per step over all GPUs.
        crop_px: Side of the HR crops.
    """

    images: ImageSettings
    num_samples: int
    sample_bytes: float
    total_images: int
    batch_size: int
    crop_px: int

    @property
    def num_crops(self) -> int:
        """Crops of a whole cache."""
        return self.num_samples * self.images.variants

    @property
    def crops_per_map(self) -> float:
        """Cells of a sub-image's map, in crops."""
        return (FEATURE_MODES["map"].window_px(self.images, self.crop_px) / self.crop_px) ** 2

    def num_positions(self, mode: str) -> int:
        """Return the number of places in a sub-image where a mode's crops may lie."""
        settings = self.images
        multiple_px = math.lcm(settings.scale, FEATURE_MODES[mode].cell_px)
        return max(0, (settings.sub_image_px - self.crop_px) // multiple_px + 1) ** 2


@dataclass(frozen=True)
class ModeCost:
    """The cost of one mode; times are those of the whole run on the whole cluster."""

    name: str
    """`online`, the codec of a cache of crops, or `map`, whose codec is the default one."""
    feature_bytes: float
    """What is read for each image."""
    cache_bytes: float
    """Size of the cache: all samples, and all variants."""
    images_per_second: float
    """Throughput of the cluster while it trains."""
    read_mb_per_second_per_gpu: float
    """What each GPU's loaders have to read, images included, in 10^6 bytes/s."""
    saved_ms_per_step: float
    """Less time of each GPU per step than online; negative where reading takes longer than the extractor."""
    fill_hours: float
    """Writing the cache."""
    train_hours: float
    """Training, once it is written."""
    break_even_images: float
    """Length of a run from which the cache has paid for itself; infinite where it never does."""
    is_read_bound: bool
    """Whether storage limits the throughput, rather than the GPUs."""
    workers_per_gpu: int
    """Loader processes per GPU that keep up."""

    @property
    def hours(self) -> float:
        """All of it."""
        return self.fill_hours + self.train_hours


@dataclass(frozen=True)
class _Cache:
    """What a cache holds: so many features, each as large as so many crops'."""

    name: str
    codec: str
    num_features: int
    crops_each: float


def estimate(cluster: Cluster, rates: Rates, work: Work) -> list[ModeCost]:
    """Return the cost of every mode, `online` first and `map` last."""
    online = _cost_of(cluster, rates, work, _Cache(ONLINE, "", 0, 0.0), None)
    caches = [_Cache(codec, codec, work.num_crops, 1.0) for codec in CODECS.names if codec in rates.feature_bytes]
    caches.append(_Cache(MAP, DEFAULT_CODEC, work.num_samples, work.crops_per_map))
    return [online, *(_cost_of(cluster, rates, work, cache, online) for cache in caches)]


def _cost_of(cluster: Cluster, rates: Rates, work: Work, cache: _Cache, online: ModeCost | None) -> ModeCost:
    feature_bytes = cache.crops_each * rates.feature_bytes.get(cache.codec, 0.0)
    step_s, extract_s = 1 / rates.step_images_per_second, 1 / rates.extractor_images_per_second
    decode_s = 0.0 if online is None else cache.crops_each / rates.decode_images_per_second[cache.codec]
    # Per machine, whose loaders read an image, and with it its features.
    trainable = cluster.gpus_per_node / (step_s + extract_s if online is None else step_s)
    read_bytes = feature_bytes + work.sample_bytes
    per_node = min(trainable, rates.read_mb_per_second * 1e6 / read_bytes)
    per_second, per_gpu = cluster.num_nodes * per_node, per_node / cluster.gpus_per_node
    fill_s = cache.num_features * cache.crops_each * extract_s / cluster.num_gpus
    saved_s = 0.0 if online is None else 1 / online.images_per_second - 1 / per_second  # per image of the cluster
    return ModeCost(
        name=cache.name,
        feature_bytes=feature_bytes,
        cache_bytes=feature_bytes * cache.num_features,
        images_per_second=per_second,
        read_mb_per_second_per_gpu=per_gpu * read_bytes / 1e6,
        saved_ms_per_step=1e3 * saved_s * work.batch_size,
        fill_hours=fill_s / 3600,
        train_hours=work.total_images / per_second / 3600,
        break_even_images=fill_s / saved_s if saved_s > 0 else math.inf,
        is_read_bound=per_node < trainable,
        workers_per_gpu=math.ceil(per_gpu * (1 / rates.loader_images_per_second + decode_s)),
    )


def choose(costs: list[ModeCost]) -> tuple[ModeCost, str]:
    """Return the mode to take, online or the default codec's cache, and why."""
    online = costs[0]
    cached = next(cost for cost in costs if cost.name == DEFAULT_CODEC)
    saving = 1 - cached.hours / online.hours
    if saving >= _LEAST_SAVING:
        return cached, f"it saves {online.hours - cached.hours:,.1f} h of {online.hours:,.1f} ({saving:.1%})"
    if cached.is_read_bound and cached.train_hours >= online.train_hours:
        return online, "reading the cache would limit the throughput to less than the extractor does"
    if saving > 0:
        return online, f"a cache would save {saving:.1%}, less than new crops in every epoch are worth"
    return online, (
        f"the run is shorter than the {cached.break_even_images:,.0f} images from which a cache pays for "
        f"the {cached.fill_hours:,.2f} h that it takes to write"
        if math.isfinite(cached.break_even_images)
        else "a cache saves nothing in a step"
    )


def describe(costs: list[ModeCost], cluster: Cluster, rates: Rates, work: Work, checkpoint_bytes: float) -> str:
    """Return the comparison as text."""
    variants = work.images.variants
    chosen, why = choose(costs)
    lines = [
        f"{work.num_samples:,} samples, {work.total_images / work.num_samples:.1f} epochs, "
        f"{cluster.num_nodes} machine(s) of {cluster.gpus_per_node} GPU(s), batch {work.batch_size}",
        *([f"assumed, not measured: {'; '.join(rates.assumed)}"] if rates.assumed else []),
        f"cached: {variants} crop(s) per sample, repeated every {variants} epoch(s); online: new ones in every epoch",
        f"map: crops at {work.num_positions(MAP):,} places of a sub-image, on the grid of 16 px, instead of "
        f"{work.num_positions('crops'):,}; new in every epoch; approximate (docs/features.md), so never chosen here",
        "",
        f"{'mode':<12}{'KiB read':>9}{'stored GiB':>12}{'MB/s per GPU':>14}{'saved ms/step':>15}{'break-even':>14}"
        f"{'write h':>10}{'train h':>12}{'all h':>12}{'images/s':>10}",
        *(_line(cost, work) for cost in costs),
        "",
        f"take {chosen.name}: {why}",
        f"whole run: {chosen.hours:,.1f} h at {chosen.images_per_second:,.1f} images/s, "
        f"{chosen.workers_per_gpu} loader process(es) per GPU, {checkpoint_bytes / 2**20:,.0f} MiB per checkpoint"
        + _price(cluster, chosen),
    ]
    return "\n".join(lines)


def _line(cost: ModeCost, work: Work) -> str:
    epochs = cost.break_even_images / work.num_samples
    pays = "-" if cost.name == ONLINE else f"{epochs:,.1f} epochs" if math.isfinite(epochs) else "never"
    return (
        f"{cost.name:<12}{cost.feature_bytes / 2**10:>9.1f}{cost.cache_bytes / 2**30:>12.2f}"
        f"{cost.read_mb_per_second_per_gpu:>14.1f}{cost.saved_ms_per_step:>15.2f}{pays:>14}{cost.fill_hours:>10,.2f}"
        f"{cost.train_hours:>12,.2f}{cost.hours:>12,.2f}{cost.images_per_second:>10.4g}"
        + ("  (storage limits)" if cost.is_read_bound else "")
    )


def _price(cluster: Cluster, chosen: ModeCost) -> str:
    if not cluster.price_per_gpu_hour:
        return ""
    gpu_hours = chosen.hours * cluster.num_gpus
    return f", {gpu_hours:,.0f} GPU-hours for {gpu_hours * cluster.price_per_gpu_hour:,.0f}"

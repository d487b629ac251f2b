"""Damaged samples are replaced by the same others on any number of ranks, and stop a run that has too many."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from test_training_samples import samples_of, write_numbered_features
from torch.utils.data import Sampler

from pipeline.config.schema import Preset
from pipeline.data.damage import DamageTally
from pipeline.data.samples import Item, RankBatches, TrainingSamples, batches, collate
from pipeline.errors import DamagedDataError
from shards.errors import ShardError
from shards.format.manifest import read_manifest, write_manifest
from shards.format.sidecars import Member, read_sidecar
from shards.format.tars import publish_shard
from shards.read.order import order_samples
from shards.read.reader import ShardSet

BATCH = 12
LARGE_BATCH = 24
WORLD_SIZES = (1, 2, 3, 4, 6, 8)
DAMAGED_SHARD = 1


def flip(folder: Path, tar_name: str, member: Member) -> None:
    """Flip one bit in the middle of a member."""
    tar = folder / tar_name
    data = bytearray(tar.read_bytes())
    data[member.offset + member.size_bytes // 2] ^= 1
    tar.write_bytes(data)


def damage(folder: Path, shard: int, *, samples: slice, extension: str = "png") -> set[int]:
    """Damage a member of some samples of a shard; return the samples' indices."""
    images = ShardSet.open(folder)
    entry = images.manifest.shards[shard]
    indices = list(images.range_of(shard))[samples]
    names = {f"{images.sample(index).key}.{extension}" for index in indices}
    for member in read_sidecar(folder / entry.sidecar_name).members:
        if member.name in names:
            flip(folder, entry.tar_name, member)
    return set(indices)


@pytest.fixture
def copy(preset: Preset, tmp_path: Path) -> Preset:
    """The tiny dataset in a folder that a test may spoil."""
    shutil.copytree(preset.train.data.shards, tmp_path / "shards")
    data = dataclasses.replace(preset.train.data, shards=tmp_path / "shards")
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, data=data))


def all_items(samples: TrainingSamples, count: int) -> list[Item]:
    return [samples[position] for position in range(count)]


@pytest.mark.parametrize("window_shards", [0, 2])
def test_damaged_samples_are_replaced_by_the_same_others_on_any_ranks(
    preset: Preset, copy: Preset, window_shards: int
) -> None:
    lost = damage(copy.train.data.shards, DAMAGED_SHARD, samples=slice(None, None, 2))

    def open_samples() -> TrainingSamples:
        return samples_of(copy, window_shards=window_shards)

    healthy = samples_of(preset, window_shards=window_shards)
    sizes = [shard.num_samples for shard in read_manifest(copy.train.data.shards).shards]
    order = order_samples(sizes, copy.train.seed, window_shards)
    count = -(-2 * sum(sizes) // BATCH) * BATCH
    items = all_items(open_samples(), count)
    for position, item in enumerate(items):
        if order.index(position) in lost:
            assert item.fault is not None
            assert f"image {position:,} of the run" in item.fault
            assert "images-000001.tar member " in item.fault
            assert f"took {item.key} instead" in item.fault
        else:
            assert item.fault is None
            assert item.key == healthy[position].key
    assert sum(item.fault is not None for item in items[: sum(sizes)]) == len(lost)
    expected = collate(items)
    for worlds in ((1, 1), (2, 2), (3, 4)):
        batches_of = [
            collate_ranks(open_samples, world, first, count) for world, first in zip(worlds, (0, 1), strict=True)
        ]
        assert tuple(itertools.chain(*(b.keys for b in batches_of))) == expected.keys
        assert torch.equal(torch.cat([b.images[0].hr for b in batches_of]), expected.images[0].hr)
        assert tuple(itertools.chain(*(b.faults for b in batches_of))) == expected.faults


def collate_ranks(open_samples: Callable[[], TrainingSamples], world_size: int, half: int, count: int) -> object:
    """One half of a run, by readers that have read nothing else."""
    middle = count // BATCH // 2 * BATCH
    first, end = ((0, middle), (middle, count))[half]
    ranks = [
        (open_samples(), RankBatches(first, (end - first) // BATCH, BATCH, rank, world_size))
        for rank in range(world_size)
    ]
    return collate(
        [
            samples[position]
            for shares in zip(*(order for _, order in ranks), strict=True)
            for (samples, _), share in zip(ranks, shares, strict=True)
            for position in share
        ]
    )


class AllRanks(Sampler[list[int]]):
    """The batches of every rank of every world size, one rank after the other: one pool of workers reads them all."""

    def __init__(self, first_image: int, num_steps: int) -> None:
        self.ranks = [(world_size, rank) for world_size in WORLD_SIZES for rank in range(world_size)]
        self.num_steps = num_steps
        self._orders = [RankBatches(first_image, num_steps, LARGE_BATCH, rank, world) for world, rank in self.ranks]

    def __len__(self) -> int:
        return len(self.ranks) * self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.chain.from_iterable(self._orders)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 7 worker processes")
@pytest.mark.parametrize("num_workers", [0, 2, 7])
def test_sequence_is_the_same_for_all_world_sizes_and_workers_though_samples_are_damaged(
    copy: Preset, num_workers: int
) -> None:
    damage(copy.train.data.shards, 0, samples=slice(None))
    samples, order = samples_of(copy, window_shards=3), AllRanks(LARGE_BATCH, num_steps=2)
    read = iter(batches(samples, order, num_workers, pin_memory=False))
    expected = [collate([samples[position] for position in range(first, first + LARGE_BATCH)]) for first in (24, 48)]
    assert any(batch.faults for batch in expected)
    for world_size in WORLD_SIZES:
        ranks = [[next(read) for _ in range(order.num_steps)] for _ in range(world_size)]
        for whole, shares in zip(expected, zip(*ranks, strict=True), strict=True):
            assert tuple(itertools.chain(*(share.keys for share in shares))) == whole.keys
            assert tuple(itertools.chain(*(share.faults for share in shares))) == whole.faults
            assert torch.equal(torch.cat([share.images[0].hr for share in shares]), whole.images[0].hr)
            assert torch.equal(torch.cat([share.images[0].lq for share in shares]), whole.images[0].lq)
    assert next(read, None) is None


def test_png_that_does_not_decode_is_replaced_though_its_crc_is_right(copy: Preset) -> None:
    folder = copy.train.data.shards
    images, manifest = ShardSet.open(folder), read_manifest(folder)
    spoiled = images.range_of(0).start
    members = [
        (
            f"{sample.key}.{extension}",
            content[: len(content) // 2] if (index, extension) == (spoiled, "png") else content,
        )
        for index, sample in enumerate(images.samples_of(0))
        for extension, content in sample.members.items()
    ]
    entry = publish_shard(folder, manifest.shards[0].name, members, {})
    write_manifest(folder, dataclasses.replace(manifest, shards=(entry, *manifest.shards[1:])))
    items = all_items(samples_of(copy), len(images))
    faults = [item.fault for item in items if item.fault]
    assert len(faults) == 1
    assert f"{images.sample(spoiled).key}.png: the image cannot be decoded" in faults[0]


def test_sidecar_when_damaged_loses_its_shard_and_no_other(copy: Preset) -> None:
    folder = copy.train.data.shards
    images = ShardSet.open(folder)
    sidecar = folder / images.manifest.shards[DAMAGED_SHARD].sidecar_name
    sidecar.write_bytes(sidecar.read_bytes()[:-2])
    items = all_items(samples_of(copy), len(images))
    faults = [item.fault for item in items if item.fault]
    assert len(faults) == len(images.range_of(DAMAGED_SHARD))
    assert all(f"{sidecar.name} is damaged" in fault for fault in faults)


@pytest.mark.parametrize("suffix", ["tar", "json"])
def test_file_when_missing_stops_the_run_instead(copy: Preset, suffix: str) -> None:
    folder = copy.train.data.shards
    (folder / f"images-000001.{suffix}").unlink()
    with pytest.raises(ShardError, match=rf"cannot read .*images-000001\.{suffix}"):
        all_items(samples_of(copy), len(ShardSet.open(folder)))


def test_samples_when_all_are_damaged_stop_with_the_first(copy: Preset) -> None:
    folder = copy.train.data.shards
    for shard in range(len(read_manifest(folder).shards)):
        damage(folder, shard, samples=slice(None), extension="json")
    with pytest.raises(ShardError, match=r"64 samples in a row are damaged, the first: .*\.json has a wrong CRC"):
        samples_of(copy)[0]


def test_feature_when_damaged_takes_another_sample_with_its_own_feature(preset: Preset, tmp_path: Path) -> None:
    images, folder = ShardSet.open(preset.train.data.shards), tmp_path / "features"
    write_numbered_features(images, folder)
    lost = 5
    name = f"{images.sample(lost).key}.001.f16"
    entry = read_manifest(folder).shards[images.locate(lost)[0]]
    members = read_sidecar(folder / entry.sidecar_name).members
    flip(folder, entry.tar_name, next(member for member in members if member.name == name))
    cached = samples_of(preset, folder)
    items = all_items(cached, 2 * len(images))
    replaced = [position for position, item in enumerate(items) if item.fault]
    # The first epoch reads variant 0 alone: what lies beside it does not matter.
    assert len(replaced) == 1
    assert replaced[0] >= len(images)
    item = items[replaced[0]]
    number, variant = item.semantics.ravel().tolist()
    assert item.key == f"{images.sample(int(number)).key}#1"
    assert variant == 1
    assert number != lost


def test_tally_when_an_epoch_has_more_than_its_share_stops() -> None:
    tally = DamageTally(num_samples=100, max_fraction=0.03)
    for images_seen in (0, 50, 96):
        tally.add(1, images_seen)
    tally.add(3, 104)  # another epoch
    assert tally.total == 6
    resumed = DamageTally(num_samples=100, max_fraction=0.03)
    resumed.load(tally.to_plain())
    resumed.add(0, 112)
    for each in (tally, resumed):
        with pytest.raises(DamagedDataError, match=r"4 samples of epoch 1 are damaged, of 100; .*0\.03 allows 3"):
            each.add(1, 120)


def test_tally_when_nothing_may_be_damaged_stops_at_the_first() -> None:
    tally = DamageTally(num_samples=10, max_fraction=0.0)
    tally.add(0, 0)
    with pytest.raises(DamagedDataError, match="allows 0"):
        tally.add(1, 0)

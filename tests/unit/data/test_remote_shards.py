"""Training samples from a real S3 server on loopback: the same as from the folder, fetched ahead window by window."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from test_training_samples import samples_of

from pipeline.config.plain import structure, to_plain
from pipeline.config.schema import Preset
from pipeline.data.samples import Item, TrainingSamples
from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath
from shards.format.storage import parse_path
from shards.read.cache import ShardCache

WINDOW = 2


@pytest.fixture
def remote(preset: Preset, bucket: str) -> RemotePath:
    home = RemotePath(f"{bucket}/ünï/shards #1 + 50%")
    for path in preset.train.data.shards.iterdir():
        with path.open("rb") as stream:
            (home / path.name).publish(stream)
    return home


def remote_samples(preset: Preset, remote: RemotePath, cache: ShardCache) -> TrainingSamples:
    gib = cache.limit_bytes / 2**30
    return samples_of(preset, window_shards=WINDOW, shards=remote, cache_dir=cache.folder, cache_gib=gib)


def same(ours: Item, theirs: Item) -> bool:
    return ours.key == theirs.key and np.array_equal(ours.hr, theirs.hr) and np.array_equal(ours.lq, theirs.lq)


def test_items_when_remote_are_those_of_the_folder_through_a_cache_of_two_windows(
    preset: Preset, remote: RemotePath, tmp_path: Path
) -> None:
    largest = max(entry.size_bytes for entry in read_manifest(remote).shards)
    cache = ShardCache(tmp_path, 2 * WINDOW * largest)
    samples, local = remote_samples(preset, remote, cache), samples_of(preset, window_shards=WINDOW)
    count = 2 * read_manifest(remote).num_samples + 5
    for position in range(count):
        assert same(samples[position], local[position])
        assert cache.size_bytes() <= cache.limit_bytes + largest  # one may be on its way
    other = pickle.loads(pickle.dumps(samples))
    assert same(other[3], local[3])


def test_shards_when_a_window_begins_are_fetched_ahead_of_the_reader(
    preset: Preset, remote: RemotePath, tmp_path: Path
) -> None:
    samples = remote_samples(preset, remote, ShardCache(tmp_path, 2**30))
    entries = read_manifest(remote).shards
    order = samples.members[0].order
    windows = order.windows_from(0, 3)
    samples[0]
    samples.members[0].prefetcher.wait()
    copies = {path.stem for path in tmp_path.glob("*.tar")}
    assert copies == {entries[shard].sha256 for window in windows[:2] for shard in window}
    for shard in windows[1]:
        (remote / entries[shard].tar_name).unlink()
        (remote / entries[shard].sidecar_name).unlink()
    second = next(
        position for position in range(100) if samples.members[0].order.windows_from(position, 1)[0] == windows[1]
    )
    assert samples[second].fault is None
    samples.members[0].prefetcher.wait()
    assert entries[windows[2][0]].sha256 in {path.stem for path in tmp_path.glob("*.tar")}


def test_windows_when_listed_are_those_that_the_order_reads_from(preset: Preset) -> None:
    samples = samples_of(preset, window_shards=WINDOW)
    total = len(samples.members[0].images)
    for position in range(3 * total):
        windows = samples.members[0].order.windows_from(position, 3)
        assert samples.members[0].images.locate(samples.members[0].order.index(position))[0] in windows[0]
        assert len(windows) == 3
    everything = [shard for window in samples.members[0].order.windows_from(0, 100) for shard in window]
    num_shards = len(samples.members[0].images.manifest.shards)
    assert sorted(everything[:num_shards]) == sorted(everything[num_shards : 2 * num_shards]) == list(range(num_shards))


def test_preset_when_shards_are_a_url_keeps_it(preset: Preset) -> None:
    plain = to_plain(preset)
    plain["train"]["data"]["shards"] = "s3://bucket/deep/shards"
    plain["train"]["data"]["cache_gib"] = 0.5
    data = structure(plain, Preset, "test").train.data
    assert data.shards == parse_path("s3://bucket/deep/shards")
    assert data.cache == ShardCache(preset.train.data.cache_dir, 2**29)
    assert to_plain(data)["shards"] == "s3://bucket/deep/shards"

"""Copies of shards from a real S3 server on loopback: fetched once, checked, bounded, and safe to kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from shards.errors import DamageError, InputError, ShardError
from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath
from shards.read import cache as cache_module
from shards.read import verified
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet
from shards.read.verified import note_of

MIB = 2**20


@pytest.fixture
def remote(dataset: Path, bucket: str) -> RemotePath:
    """The dataset in a bucket of its own."""
    home = RemotePath(f"{bucket}/shards")
    for path in dataset.iterdir():
        put(home / path.name, path.read_bytes())
    return home


def put(path: RemotePath, data: bytes) -> None:
    with path_stream(data) as stream:
        path.publish(stream)


def path_stream(data: bytes) -> object:
    import io

    return io.BytesIO(data)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 100 * MIB)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tars fetched by this process, in order."""
    names: list[str] = []
    download = cache_module._download

    def recording(source: RemotePath, target: Path) -> str:
        names.append(source.name)
        return download(source, target)

    monkeypatch.setattr(cache_module, "_download", recording)
    monkeypatch.setattr(cache_module, "_PAUSES_S", (0.0, 0.0))
    return names


def contents(images: ShardSet) -> list[tuple[str, dict[str, bytes]]]:
    return [(sample.key, sample.members) for sample in map(images.sample, range(len(images)))]


def test_samples_when_remote_are_those_of_the_folder_and_each_tar_is_fetched_once(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str]
) -> None:
    expected = contents(ShardSet.open(dataset))
    assert contents(ShardSet.open(remote, cache)) == expected
    assert sorted(fetched) == [shard.tar_name for shard in read_manifest(dataset).shards]
    for shard in read_manifest(dataset).shards:
        (remote / shard.tar_name).unlink()
        (remote / shard.sidecar_name).unlink()
    assert contents(ShardSet.open(remote, cache)) == expected
    member = ShardSet.open(remote, cache).member(3, "png")
    assert member == (expected[3][0], expected[3][1]["png"])


def test_shards_when_remote_without_a_cache_or_with_too_small_a_one_are_refused(
    remote: RemotePath, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"read through a cache; set data\.cache_dir"):
        ShardSet.open(remote)
    with pytest.raises(InputError, match="below the largest shard"):
        ShardSet.open(remote, ShardCache(tmp_path, 1000))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot make data\.cache_dir"):
        ShardSet.open(remote, ShardCache(tmp_path / "file" / "cache", MIB))


def test_cache_when_full_drops_what_was_used_longest_ago(
    dataset: Path, remote: RemotePath, tmp_path: Path, fetched: list[str]
) -> None:
    entries = read_manifest(dataset).shards
    cache = ShardCache(tmp_path / "cache", sum(entry.size_bytes for entry in entries[:3]))
    cache.prepare(0)
    for number, entry in enumerate((*entries[:3], entries[0], entries[3])):
        age(note_of(cache.tar(remote, entry)), 100 - number)
        assert cache.size_bytes() <= cache.limit_bytes
    # The second was used longest ago; the first had been used again.
    assert not list(cache.folder.glob(f"{entries[1].sha256}.*"))
    assert (cache.folder / f"{entries[0].sha256}.tar").exists()
    assert len(fetched) == 4
    images = ShardSet.open(remote, cache)
    assert contents(images) == contents(ShardSet.open(dataset))
    assert cache.size_bytes() <= cache.limit_bytes


def test_tar_is_hashed_once_until_it_changes_or_the_machine_starts_again(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    sha256 = verified.sha256

    def recording(pieces: Iterator[bytes]) -> bytes:
        hashed.append("a tar")
        return sha256(pieces)

    def as_in_another_process() -> int:
        monkeypatch.setattr(verified, "_KNOWN", set())
        del hashed[:]
        cache.open(remote, entry).close()
        return len(hashed)

    monkeypatch.setattr(verified, "sha256", recording)
    entry = read_manifest(dataset).shards[0]
    copy = cache.folder / f"{entry.sha256}.tar"
    cache.prepare(0)
    assert as_in_another_process() == 0  # the download was hashed
    assert as_in_another_process() == 0
    os.utime(copy, ns=(copy.stat().st_atime_ns, copy.stat().st_mtime_ns))  # as who hides a change sets the time back
    assert as_in_another_process() == 1
    assert as_in_another_process() == 0
    monkeypatch.setattr(verified, "_boot", lambda: "another start")
    assert as_in_another_process() == 1
    assert as_in_another_process() == 0
    monkeypatch.setattr(verified, "_boot", lambda: "")
    assert as_in_another_process() == 1
    assert as_in_another_process() == 1
    assert len(fetched) == 1
    copy.write_bytes(flipped(copy.read_bytes(), 600))
    as_in_another_process()
    assert len(fetched) == 2


def test_prefetch_waits_for_nobody(dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str]) -> None:
    first, second = read_manifest(dataset).shards[:2]
    cache.prepare(0)
    with cache._lock(first.sha256[:2]):  # as while another process fetches it
        cache.prefetch(remote, first)
        cache.prefetch(remote, second)
    assert fetched == [second.tar_name]
    cache.prefetch(remote, first)
    cache.prefetch(remote, first)
    assert fetched == [second.tar_name, first.tar_name]


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_file_when_wrong_once_is_fetched_again(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_to = cache_module.copy_to

    def torn_first(source: RemotePath, target: Path) -> None:
        copy_to(source, target)
        if len(fetched) == 1:
            target.write_bytes(b"torn")

    monkeypatch.setattr(cache_module, "copy_to", torn_first)
    entry = read_manifest(dataset).shards[0]
    cache.prepare(0)
    assert cache.tar(remote, entry).read_bytes() == (dataset / entry.tar_name).read_bytes()
    assert fetched == [entry.tar_name] * 2


def test_file_when_wrong_twice_loses_its_damaged_samples_only_and_is_taken_again_when_mended(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str]
) -> None:
    expected, shard = ShardSet.open(dataset), 1
    entry, victim = expected.manifest.shards[shard], expected.range_of(shard)[2]
    whole = (dataset / entry.tar_name).read_bytes()
    place = whole.index(expected.sample(victim).members["png"]) + 20
    put(remote / entry.tar_name, flipped(whole, place))
    images = ShardSet.open(remote, cache)
    for index in expected.range_of(shard):
        if index != victim:
            assert images.sample(index) == expected.sample(index)
    with pytest.raises(DamageError, match=rf"{remote}/{entry.tar_name} member .*\.png has a wrong CRC"):
        images.sample(victim)
    # Another process finds the wrong copy and does not fetch in vain.
    with pytest.raises(DamageError):
        ShardSet.open(remote, cache).sample(victim)
    assert fetched == [entry.tar_name] * 2
    put(remote / entry.tar_name, whole)
    age(cache.folder / f"{entry.sha256}.damaged.tar", 3600)
    assert ShardSet.open(remote, cache).sample(victim) == expected.sample(victim)
    assert [path.name for path in cache.folder.glob("*.tar")] == [f"{entry.sha256}.tar"]


def test_copy_when_it_goes_bad_on_our_disk_is_fetched_again_and_nothing_is_lost(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str]
) -> None:
    expected = contents(ShardSet.open(dataset))
    images = ShardSet.open(remote, cache)
    assert contents(images) == expected
    entry = images.manifest.shards[0]
    copy, sidecar = (cache.folder / f"{entry.sha256}.{suffix}" for suffix in ("tar", "json"))
    copy.write_bytes(flipped(copy.read_bytes(), 600))
    sidecar.write_bytes(sidecar.read_bytes()[:-9])
    del fetched[:]
    assert contents(images) == contents(ShardSet.open(remote, cache)) == expected
    assert fetched == [entry.tar_name]


def test_sidecar_when_damaged_in_the_store_is_damage_of_its_samples(
    dataset: Path, remote: RemotePath, cache: ShardCache
) -> None:
    entry = read_manifest(dataset).shards[0]
    put(remote / entry.sidecar_name, (dataset / entry.sidecar_name).read_bytes()[:-3])
    with pytest.raises(DamageError, match="is damaged"):
        ShardSet.open(remote, cache).sample(0)


def test_object_when_missing_or_store_unreachable_says_so(
    dataset: Path, remote: RemotePath, cache: ShardCache, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = read_manifest(dataset).shards[0]
    images = ShardSet.open(remote, cache)
    images.sample(images.range_of(1).start)
    (remote / entry.tar_name).unlink()
    with pytest.raises(ShardError, match=rf"cannot fetch a shard: .*{remote}/{entry.tar_name}") as caught:
        images.sample(0)
    assert not isinstance(caught.value, DamageError)
    assert fetched[1:] == [entry.tar_name]

    def failing(source: RemotePath, target: Path) -> str:
        fetched.append("tried")
        raise OSError(5, "connection reset", str(source))

    monkeypatch.setattr(cache_module, "_download", failing)
    with pytest.raises(ShardError, match="connection reset"):
        images.sample(0)
    assert fetched[2:] == ["tried"] * 3
    assert not list(cache.folder.glob(".*"))


def test_manifest_when_the_store_is_unreachable_says_so(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    with pytest.raises(ShardError, match=rf"no shards here yet: {bucket}/nothing"):
        read_manifest(RemotePath(f"{bucket}/nothing"))
    fsspec.config.conf["s3"] = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    try:
        with pytest.raises(ShardError, match=r"cannot read s3://elsewhere/x/manifest\.json: .*check the address"):
            read_manifest(RemotePath("s3://elsewhere/x"))
    finally:
        del fsspec.config.conf["s3"]


def run_in_child(work: Callable[..., None], *args: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    return process


def fetch_and_count(remote: RemotePath, cache: ShardCache, log: Path) -> None:
    download = cache_module._download

    def slow(source: RemotePath, target: Path) -> str:
        with log.open("a") as stream:
            stream.write(f"{source.name}\n")
        time.sleep(0.3)
        return download(source, target)

    cache_module._download = slow
    entry = read_manifest(remote).shards[0]
    cache.prepare(0)
    assert cache.tar(remote, entry).stat().st_size == entry.size_bytes


def fetch_and_hang(remote: RemotePath, cache: ShardCache) -> None:

    def hanging(source: RemotePath, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:1001])
        time.sleep(600)

    cache_module.copy_to = hanging
    cache.prepare(0)
    cache.tar(remote, read_manifest(remote).shards[0])


@pytest.mark.distributed
def test_processes_when_they_want_one_tar_fetch_it_once_and_a_killed_one_blocks_no_other(
    dataset: Path, remote: RemotePath, cache: ShardCache, tmp_path: Path
) -> None:
    victim = run_in_child(fetch_and_hang, remote, cache)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 1000 for path in cache.folder.glob(".*.sed-tmp")):
        assert time.monotonic() < deadline
        assert victim.is_alive()
        time.sleep(0.02)
    log = tmp_path / "log"
    others = [run_in_child(fetch_and_count, remote, cache, log) for _ in range(3)]
    os.kill(victim.pid, signal.SIGKILL)
    for process in (victim, *others):
        process.join(60)
    assert [process.exitcode for process in others] == [0, 0, 0]
    entry = read_manifest(dataset).shards[0]
    assert log.read_text() == f"{entry.tar_name}\n"
    assert (cache.folder / f"{entry.sha256}.tar").read_bytes() == (dataset / entry.tar_name).read_bytes()
    assert not list(cache.folder.glob(".*"))

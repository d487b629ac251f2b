"""The path of a cache can be guessed: what other users put there is never read, written to, or followed."""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fuzz import sealed
from harness import small_shard_config, write_photos, write_shards

from shards.errors import InputError, ShardError
from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath
from shards.format.sidecars import ShardEntry
from shards.read.cache import ShardCache
from shards.read.private import default_cache_dir
from shards.read.reader import ShardSet

OTHER_UID = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_shards(small_shard_config(write_photos(folder / "photos", [(96, 96)]), folder / "shards"))
    return folder / "shards"


@pytest.fixture
def remote(dataset: Path, request: pytest.FixtureRequest) -> RemotePath:
    """The dataset in a store in this process's memory."""
    store, name = fsspec.filesystem("memory"), f"attacked-{abs(hash(request.node.name))}"
    for path in dataset.iterdir():
        store.pipe_file(f"/{name}/{path.name}", path.read_bytes())
    return RemotePath(f"memory://{name}")


def as_other_user(work: Callable[[], None]) -> int:
    """Run in a child process of another user; returns its exit code, after an exception 1 and its traceback."""

    def enter() -> None:
        os.setgid(OTHER_UID)
        os.setuid(OTHER_UID)
        work()

    child = multiprocessing.get_context("fork").Process(target=enter)  # forked, so that any function can be the work
    child.start()
    child.join()
    return child.exitcode


def everybodys(tmp_path: Path) -> Path:
    """A folder like /var/tmp."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp") and "pytest" in str(folder):
            folder.chmod(0o755)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    return shared


def read_all(remote: RemotePath, folder: Path) -> list[dict[str, bytes]]:
    images = ShardSet.open(remote, ShardCache(folder, 2**30))
    return [images.sample(index).members for index in range(len(images))]


def test_cache_is_by_default_below_the_users_own_and_private(
    remote: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "sed-trainer" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "sed-trainer" / "shards"
    read_all(remote, default_cache_dir())
    assert stat.S_IMODE(default_cache_dir().stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in default_cache_dir().glob("*.lock")} == {0o600}


@needs_root
def test_folder_that_another_user_made_first_is_refused(remote: RemotePath, tmp_path: Path) -> None:
    cache = everybodys(tmp_path) / "cache"
    assert as_other_user(cache.mkdir) == 0
    with pytest.raises(InputError, match=rf"data\.cache_dir={cache} cannot be used"):
        read_all(remote, cache)


@needs_root
@pytest.mark.parametrize("suffix", ["tar", "json", "checked", "damaged.tar"])
def test_file_that_another_user_created_is_refused(
    suffix: str, dataset: Path, remote: RemotePath, tmp_path: Path
) -> None:
    cache = everybodys(tmp_path)
    entry = read_manifest(dataset).shards[0]
    assert as_other_user(lambda: (cache / f"{entry.sha256}.{suffix}").touch() or None) == 0
    with pytest.raises(InputError, match=rf"belongs to user {OTHER_UID}.*data\.cache_dir={cache}"):
        read_all(remote, cache)


@pytest.mark.parametrize("name", ["00.lock", "space.lock"])
def test_lock_file_that_is_a_link_is_not_followed(name: str, remote: RemotePath, tmp_path: Path) -> None:
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    cache.mkdir(mode=0o700)
    victim.write_text("precious")
    for number in range(256):
        (cache / (name if name == "space.lock" else f"{number:02x}.lock")).unlink(missing_ok=True)
        (cache / (name if name == "space.lock" else f"{number:02x}.lock")).symlink_to(victim)
    with pytest.raises(InputError, match="is a link or not a regular file"):
        read_all(remote, cache)
    assert victim.read_text() == "precious"


@needs_root
def test_second_user_of_a_private_cache_is_told_which_cache(remote: RemotePath, tmp_path: Path) -> None:
    cache = everybodys(tmp_path) / "cache"
    read_all(remote, cache)

    def read() -> None:
        with pytest.raises(InputError, match=rf"data\.cache_dir={cache}") as caught:
            read_all(remote, cache)
        assert "verify.py" not in str(caught.value)

    assert as_other_user(read) == 0


@pytest.mark.parametrize("in_place", [True, False])
def test_copy_of_other_bytes_and_the_same_length_is_fetched_again(
    in_place: bool, dataset: Path, remote: RemotePath, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    expected = read_all(remote, cache)
    for copy in cache.glob("*.tar"):
        content, status = bytearray(copy.read_bytes()), copy.stat()
        content[600:700] = bytes(100)
        if not in_place:
            copy.unlink()
        copy.write_bytes(content)
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_all(remote, cache) == expected
    assert {copy.read_bytes() for copy in cache.glob("*.tar")} == {copy.read_bytes() for copy in dataset.glob("*.tar")}


def test_manifest_that_names_a_path_for_a_hash_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    """`sha256: "../victim/.docker/config"` made the cache write the store's sidecar over `.docker/config.json`."""
    import json

    victim = tmp_path / "victim" / ".docker" / "config.json"
    victim.parent.mkdir(parents=True)
    victim.write_text("credentials")
    evil = "../victim/.docker/config"
    store, cache = fsspec.filesystem("memory"), tmp_path / "cache"
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    manifest["shards"][0]["sha256"] = evil
    sidecar = json.loads((dataset / "images-000000.json").read_bytes())
    sidecar["shard"]["sha256"] = evil
    store.pipe_file("/evil/manifest.json", sealed(manifest))
    store.pipe_file("/evil/images-000000.json", sealed(sidecar))
    with pytest.raises(ShardError, match=r"must be 64 lower-case hex digits; got '\.\./victim"):
        read_all(RemotePath("memory://evil"), cache)
    # Nor does an entry that came another way lead outside.
    entry = ShardEntry("images-000000", evil, 10240, 1)
    ShardCache(cache, 2**30).prepare(0)
    for fetch in (ShardCache(cache, 2**30).sidecar, ShardCache(cache, 2**30).tar):
        with pytest.raises(ShardError, match="is not the name of a file"):
            fetch(RemotePath("memory://evil"), entry)
    assert victim.read_text() == "credentials"
    assert [path for path in victim.parent.iterdir()] == [victim]

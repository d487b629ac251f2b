"""Folders and object stores behind one type, on a real S3 server on loopback."""

from __future__ import annotations

import base64
import hashlib
import pickle
import sys
from pathlib import Path

import fsspec
import pytest
from harness import small_shard_config

from jobs.command_line import PRESETS, apply_flags
from pipeline.config.plain import structure, to_plain
from shards.config import ShardConfig
from shards.errors import InputError
from shards.format.files import check_writable, open_atomic, sha256_of, write_atomically
from shards.format.remote import RemotePath
from shards.format.storage import blocks, parse_path, size_bytes


def facts(path: RemotePath) -> dict[str, object]:
    store, key = fsspec.url_to_fs(path.url, use_listings_cache=False)
    info = store.info(key)
    return {"etag": info["ETag"], "modified": info["LastModified"]}


def names(folder: RemotePath) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_path_when_parsed_is_local_or_remote(tmp_path: Path) -> None:
    assert parse_path(str(tmp_path)) == tmp_path
    assert parse_path(f"file://{tmp_path}") == tmp_path
    remote = parse_path("s3://bucket/deep/")
    assert isinstance(remote, RemotePath)
    child = remote / "images-000000.tar"
    assert (str(child), child.name, child.stem) == ("s3://bucket/deep/images-000000.tar", child.name, "images-000000")
    assert pickle.loads(pickle.dumps(child)) == child
    for bad in ("", "s3://", "://x"):
        with pytest.raises(InputError):
            parse_path(bad)


ODD_NAMES = (
    "a b",
    " a ",
    "a#b",
    "a%b",
    "a%20b",
    "a+b",
    "a&b=c",
    "ünï",
    "e\u0301",
    "日本",
    "a'b",
    'a"b',
    "a*[b]",
    "a@b:c",
)


def keys(bucket: str) -> list[str]:
    """The objects of a bucket by their whole names, as the store itself lists them."""
    store, name = fsspec.url_to_fs(bucket)
    return [item["Key"] for item in store.call_s3("list_objects_v2", Bucket=name).get("Contents", [])]


def test_folder_of_an_odd_name_is_written_listed_read_and_recorded_under_that_name(bucket: str) -> None:
    for name in ODD_NAMES:
        folder = parse_path(f"{bucket}/deep/{name}")
        assert isinstance(folder, RemotePath)
        assert (str(folder), folder.name) == (f"{bucket}/deep/{name}", name)
        config = small_shard_config(Path("photos"), folder)
        assert structure(to_plain(config), ShardConfig, "test") == config
        write_atomically(folder / "a.json", b"data")
        write_atomically(folder / f"{name}.json", b"data")
        assert names(folder) == sorted(["a.json", f"{name}.json"])
        assert {path.read_bytes() for path in folder.glob("*.json")} == {b"data"}
        assert [path.size_bytes() for path in folder.iterdir()] == [4, 4]
    assert names(RemotePath(f"{bucket}/deep")) == sorted(ODD_NAMES)
    assert sorted(keys(bucket)) == sorted(f"deep/{name}/{last}.json" for name in ODD_NAMES for last in ("a", name))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "s3://bucket/a?b",
            r"holds '\?', which clients read as the start of a query; give .* a name without it",
        ),
        ("s3://bucket/x?versionId=abc", r"'s3://bucket/x' holds '\?'"),
        ("ftp://host/a?b", r"holds '\?'"),
        ("s3://bucket/a::b", r"holds '::', which clients read as two stores; give the folder a name without it"),
        ("simplecache::s3://bucket/a", r"holds '::'"),
        ("s3://bucket/a\nb", r"'s3://bucket/a\\nb' holds a control character"),
        ("s3://bucket/a\udcffb", r"holds a control character"),
        ("https://host/a#b", r"holds '#', which ends a web address; write it as % and its code \(%23 for '#'\)"),
    ],
)
def test_url_of_which_a_part_would_not_reach_the_store_is_refused(url: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_path(url)


def test_object_with_a_question_mark_that_others_put_there_is_listed_by_its_name(bucket: str) -> None:
    folder = RemotePath(bucket)
    write_atomically(folder / "images-000000?.tar", b"stray")
    assert names(folder) == ["images-000000?.tar"]
    assert next(folder.iterdir()).read_bytes() == b"stray"


def test_output_when_a_url_goes_through_presets_and_flags() -> None:
    plain = to_plain(PRESETS.load("demo", ShardConfig, table="shards"))
    config = structure(plain | {"output": "s3://bucket/shards"}, ShardConfig, "test")
    assert config.output == RemotePath("s3://bucket/shards")
    assert to_plain(config)["output"] == "s3://bucket/shards"
    for text in ("s3://other/place", "a/folder"):
        assert apply_flags(config, ["--output", text], "shard", "")[0].output == parse_path(text)
    assert apply_flags(config, [], "shard", "")[0] == config


def test_object_when_published_is_whole_listed_and_readable(bucket: str) -> None:
    folder = RemotePath(f"{bucket}/deep/er")
    assert not folder.exists()
    assert names(folder) == []
    data = bytes(range(256)) * 20_000
    with open_atomic(folder / "a.bin") as stream:
        stream.write(data[:1000])
        stream.write(data[1000:])
        assert not (folder / "a.bin").exists()
    assert (folder / "a.bin").read_bytes() == data
    assert b"".join(blocks(folder / "a.bin")) == data
    assert size_bytes(folder / "a.bin") == len(data)
    assert sha256_of(folder / "a.bin") == hashlib.sha256(data).hexdigest()
    write_atomically(folder / "b.json", b"{}")
    assert names(folder) == ["a.bin", "b.json"]
    assert [path.name for path in folder.glob("*.json")] == ["b.json"]
    assert folder.is_dir()
    assert not folder.is_file()
    (folder / "b.json").unlink()
    (folder / "b.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        (folder / "b.json").read_bytes()
    assert names(folder) == ["a.bin"]


def test_object_when_put_carries_its_checksum(bucket: str) -> None:
    path = RemotePath(f"{bucket}/a")
    write_atomically(path, b"data")
    store, key = fsspec.url_to_fs(path.url)
    name, rest, _ = store.split_path(key)
    head = store.call_s3("head_object", Bucket=name, Key=rest, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"data").digest()).decode()


def write_half(path: RemotePath) -> None:
    with open_atomic(path) as stream:
        stream.write(b"half")
        raise RuntimeError("died halfway")


def test_object_when_published_again_is_left_alone_or_replaced_whole(bucket: str) -> None:
    path = RemotePath(f"{bucket}/a")
    write_atomically(path, b"first")
    before = facts(path)
    write_atomically(path, b"first")
    assert facts(path) == before
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    with pytest.raises(RuntimeError, match="died halfway"):
        write_half(path)
    assert path.read_bytes() == b"second"


def test_store_when_it_has_no_conditions_of_its_own_still_works() -> None:
    folder = RemotePath("memory://test-storage/x")
    write_atomically(folder / "a", b"one")
    write_atomically(folder / "a", b"one")
    write_atomically(folder / "a", b"two")
    assert (folder / "a").read_bytes() == b"two"
    assert names(folder) == ["a"]


def test_store_when_it_cannot_be_used_says_what_to_do(
    object_store: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(RemotePath(f"{bucket}/new"))
    assert names(RemotePath(bucket)) == []
    with pytest.raises(InputError, match=r"cannot write to the output; got .*bucket.*; at s3://no-such-bucket-here/x"):
        check_writable(RemotePath("s3://no-such-bucket-here/x"))
    with pytest.raises(InputError, match=r"cannot use nonsense://x.*Protocol not known.*give a local folder"):
        check_writable(RemotePath("nonsense://x/y"))


def test_store_when_s3fs_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"Install s3fs.*pip install 'sed-trainer\[s3\]' on every machine"):
        check_writable(RemotePath("s3://bucket/x"))


def test_store_when_the_keys_are_wrong_or_nobody_answers_says_so(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemotePath(f"{bucket}/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"no response from 127\.0\.0\.1:9 within 5 s.*credentials and endpoint"):
        check_writable(folder)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot write to the output; got .*credentials"):
        check_writable(folder)
    fsspec.get_filesystem_class("s3").clear_instance_cache()

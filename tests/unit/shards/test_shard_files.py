"""Writing, reading and verifying tars."""

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.config import ShardConfig
from shards.degradation.bicubic import downscale
from shards.degradation.draws import variant_seed
from shards.errors import InputError, ShardError
from shards.format.documents import read_sealed, seal
from shards.format.files import check_writable, clean_stale, open_atomic, write_atomically
from shards.format.manifest import read_manifest
from shards.format.photos import decode_photo
from shards.format.png import pixels_sha256
from shards.format.records import SampleRecord
from shards.format.sidecars import find_finished, read_sidecar
from shards.format.tars import publish_shard
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard
from shards.write.subimages import cut_side

MEMBERS = [("a.png", b"123"), ("a.json", b"{}"), ("b.000.f16", b"x" * 700), ("b.001.f16", b"")]


def faults_of(folder: Path) -> list[str]:
    contents = verify_folder(folder)
    found = (fault for shard in contents.shards for fault in verify_shard(folder, shard, contents.settings))
    return [str(fault) for fault in [*contents.faults, *found]]


def file_hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "copy")
    return tmp_path / "copy"


def test_tar_when_published_is_plain_ustar_with_nothing_of_the_writer(tmp_path: Path) -> None:
    entry = publish_shard(tmp_path, "images-000000", iter(MEMBERS), {"kind": "images"})
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444
            tar.addfile(info, io.BytesIO(data))
    data = (tmp_path / entry.tar_name).read_bytes()
    assert data == expected.getvalue()
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert (entry.size_bytes, entry.num_samples) == (len(data), 2)
    assert entry.sha256 == GOLDEN_TAR_SHA256
    sidecar = read_sidecar(tmp_path / entry.sidecar_name)
    assert [data[m.offset : m.offset + m.size_bytes] for m in sidecar.members] == [d for _, d in MEMBERS]
    assert sidecar.members[2].key == "b"
    assert sidecar.members[2].extension == "000.f16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images-000000.json", "images-000000.tar"]


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png", "a.json"],
        ["a.png", "a.png"],
        ["a"],
        [".png"],
        ["f/a.png"],
        ["ä.png"],
        ["a._meta"],
        ["a" * 99 + ".x"],
    ],
)
def test_tar_when_a_name_is_bad_is_not_published(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="member"):
        publish_shard(tmp_path, "images-000000", ((name, b"") for name in names), {})
    assert not list(tmp_path.iterdir())


def test_finished_when_header_size_or_sidecar_differ_is_none(tmp_path: Path) -> None:
    entry = publish_shard(tmp_path, "images-000000", MEMBERS, {"fingerprint": "f"})
    assert find_finished(tmp_path, "images-000000", {"fingerprint": "f"}) == entry
    assert find_finished(tmp_path, "images-000000", {"fingerprint": "g"}) is None
    assert find_finished(tmp_path, "images-000001", {"fingerprint": "f"}) is None
    tar = tmp_path / entry.tar_name
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    assert find_finished(tmp_path, "images-000000", {"fingerprint": "f"}) is None
    tar.write_bytes(whole)
    sidecar = tmp_path / entry.sidecar_name
    sidecar.write_bytes(sidecar.read_bytes()[:-5])
    assert find_finished(tmp_path, "images-000000", {"fingerprint": "f"}) is None


def test_file_when_the_writer_fails_keeps_the_old_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), open_atomic(tmp_path / "a") as stream:  # noqa: PT012 - both lines matter
        stream.write(b"half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    (tmp_path / ".a.1-00.sed-tmp").write_bytes(b"of a killed process")
    assert clean_stale(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_output_when_nothing_can_be_written_is_refused_without_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to the output folder"):
        check_writable(tmp_path / "file" / "out")


def test_samples_when_written_show_the_same_place_in_hr_and_lr(dataset: Path, photos: Path) -> None:
    images = ShardSet.open(dataset)
    assert len({images.sample(index).key for index in range(len(images))}) == len(images)
    for index in range(0, len(images), 5):
        sample = images.sample(index)
        record = sample.record
        photo = np.asarray(Image.open(photos.parent / record.source))
        photo = photo[: cut_side(photo.shape[0], 4), : cut_side(photo.shape[1], 4)]
        top_px, left_px = record.position_px
        gt = decode_photo(sample.members["png"], max_pixels=10**6)
        lq = decode_photo(sample.members["lq.png"], max_pixels=10**6)
        assert np.array_equal(gt, photo[top_px : top_px + 32, left_px : left_px + 32])
        small = downscale(np.ascontiguousarray(photo), 4)
        assert np.array_equal(lq, small[top_px // 4 : top_px // 4 + 8, left_px // 4 : left_px // 4 + 8])
        assert record.pixels_sha256 == pixels_sha256(gt)
        assert record.size_px == (32, 32)
        assert (record.recipe, record.scale) == ("bicubic-1", 4)
        assert record.seeds == tuple(variant_seed(5, record.pixels_sha256, variant) for variant in range(3))
        assert sample.key.endswith(f"-{top_px:05d}-{left_px:05d}")
        assert "." not in sample.key


def test_samples_when_realworld_have_no_lr(make_config: Callable[..., ShardConfig], write_here: Callable) -> None:
    images = ShardSet.open(write_here(make_config(degradation="realworld", stride_px=32)))
    sample = images.sample(0)
    assert sorted(sample.members) == ["json", "png"]
    assert sample.record.recipe == "realesrgan-1"


def test_dataset_when_written_twice_has_the_same_bytes(
    dataset: Path, make_config: Callable[..., ShardConfig], write_here: Callable
) -> None:
    assert file_hashes(write_here(make_config())) == file_hashes(dataset)


def test_plain_webdataset_when_reading_the_tars_gives_every_sample_in_order(dataset: Path) -> None:
    images = ShardSet.open(dataset)
    urls = [str(dataset / shard.tar_name) for shard in images.manifest.shards]
    index = -1
    for index, sample in enumerate(webdataset.WebDataset(urls, shardshuffle=False)):
        expected = images.sample(index)
        assert sample["__key__"] == expected.key
        assert {name: sample[name] for name in expected.members} == expected.members
    assert index == len(images) - 1


def _keys_read_in_a_fork(images: ShardSet) -> list[str]:
    """Read everything in a forked child: a bare one, since a pool may deadlock beside the threads of other tests."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, "\n".join(images.sample(index).key for index in range(len(images))).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        keys = stream.read().splitlines()
    os.waitpid(child, 0)
    return keys


def test_reader_when_pickled_or_forked_reads_the_same(dataset: Path) -> None:
    images = ShardSet.open(dataset)
    expected = [images.sample(index).key for index in range(len(images))]
    copy = pickle.loads(pickle.dumps(images))
    assert [copy.sample(index).key for index in range(len(copy))] == expected
    assert _keys_read_in_a_fork(images) == expected
    assert [
        sample.key for shard in range(len(images.manifest.shards)) for sample in images.samples_of(shard)
    ] == expected
    assert images.locate(len(images) - 1)[0] == len(images.manifest.shards) - 1
    for outside in (-1, len(images)):
        with pytest.raises(IndexError):
            images.sample(outside)


def test_reader_when_a_member_is_damaged_names_shard_and_member(copy: Path) -> None:
    images = ShardSet.open(copy)
    member = read_sidecar(copy / "images-000001.json").members[0]
    tar = copy / "images-000001.tar"
    data = bytearray(tar.read_bytes())
    data[member.offset + 5] ^= 1
    tar.write_bytes(data)
    index = images.range_of(1).start
    with pytest.raises(ShardError, match=rf"images-000001\.tar member {member.name} has a wrong CRC"):
        images.sample(index)
    tar.write_bytes(data[: member.offset + 5])
    with pytest.raises(ShardError, match="is cut short"):
        images.sample(index)
    tar.unlink()
    with pytest.raises(ShardError, match="cannot read"):
        ShardSet.open(copy).sample(index)
    shutil.copy(copy / "images-000000.json", copy / "images-000001.json")
    with pytest.raises(ShardError, match="another tar than the manifest"):
        ShardSet.open(copy).sample(index)


def test_manifest_when_missing_says_how_to_get_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ShardError, match=r"no shards here yet.*run `python jobs/shard.py"):
            read_manifest(folder)
    (tmp_path / "images-000000.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="did not finish"):
        ShardSet.open(tmp_path)


def test_document_when_of_another_version_is_refused(tmp_path: Path) -> None:
    newer = json.loads(seal({"kind": "images"})) | {"format_version": 2}
    (tmp_path / "manifest.json").write_text(json.dumps(newer))
    with pytest.raises(ShardError, match="format version 2, this program reads 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "images-000001.json", "plan.json"])
def test_document_when_any_byte_is_flipped_or_cut_is_refused(name: str, copy: Path) -> None:
    path = copy / name
    whole = path.read_bytes()
    read_sealed(path)
    rng = np.random.default_rng(0)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=name):
            read_sealed(path)
    for size_bytes in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:size_bytes])
        with pytest.raises(ShardError, match=name):
            read_sealed(path)
    assert any(name in fault for fault in faults_of(copy))


def test_verify_when_whole_finds_nothing(dataset: Path) -> None:
    assert faults_of(dataset) == []


def test_verify_when_bytes_are_flipped_finds_each_and_names_the_sample(copy: Path) -> None:
    tar = copy / "images-000000.tar"
    whole = tar.read_bytes()
    entry = read_manifest(copy).shards[0]
    members = read_sidecar(copy / entry.sidecar_name).members
    for position in np.random.default_rng(1).choice(len(whole), 200, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        tar.write_bytes(damaged)
        faults = verify_shard(copy, entry, read_manifest(copy).config)
        hit = [member for member in members if member.offset <= position < member.offset + member.size_bytes]
        assert faults
        assert all(fault.file == entry.tar_name for fault in faults)
        assert [fault.sample for fault in faults] == [member.key for member in hit] or not hit


def test_verify_when_cut_at_any_block_finds_it(copy: Path) -> None:
    tar = copy / "images-000000.tar"
    whole = tar.read_bytes()
    entry = read_manifest(copy).shards[0]
    for size_bytes in range(0, len(whole), 512):
        tar.write_bytes(whole[:size_bytes])
        assert any(f"has {size_bytes} bytes, should have" in str(f) for f in verify_shard(copy, entry, None))


def test_verify_when_files_are_missing_or_strange_names_them(copy: Path) -> None:
    (copy / "images-000000.tar").unlink()
    (copy / "images-000001.json").unlink()
    (copy / "images-999999.tar").write_bytes(b"")
    faults = faults_of(copy)
    assert [fault.partition(":")[0] for fault in faults] == [
        "images-999999.tar",
        "images-000000.tar",
        "images-000001.json",
    ]


def test_verify_when_pixels_are_not_the_records_finds_it(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    record = SampleRecord("a.png", (0, 0), (4, 4), "0" * 64, "bicubic-1", 4, ()).to_bytes()
    members = [("a.png", stream.getvalue()), ("a.json", record), ("b.png", b"no image"), ("b.json", record)]
    entry = publish_shard(tmp_path, "images-000000", members, {})
    whats = [(fault.sample, fault.what) for fault in verify_shard(tmp_path, entry, None)]
    assert whats[0] == ("a", "its pixels are not those that its record names")
    assert whats[1][0] == "b"
    assert "does not decode" in whats[1][1]


GOLDEN_TAR_SHA256 = "e472768e5299da5bcb383949711b29b35b2210c3bfed276c9bab9d34a6637c04"

"""Images of a stranger's dataset: refused by their header, before anything of their size is in memory."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import small_shard_config, write_photos, write_shards

from shards.degradation.crops import Crop
from shards.errors import DamageError, ShardError
from shards.format.manifest import Manifest, read_manifest, write_manifest
from shards.format.png import decode_crop, decode_png
from shards.format.tars import publish_shard
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard

SIDE_PX = 64
HUGE_PX = 13_000
MAX_SECONDS = 5.0
MAX_MIB = 100.0


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def zeros(size_bytes: int) -> bytes:
    """A zlib stream of zeros, made without having them in memory."""
    deflate, block = zlib.compressobj(1), bytes(2**20)
    pieces = [deflate.compress(block[: min(len(block), size_bytes - start)]) for start in range(0, size_bytes, 2**20)]
    return b"".join([*pieces, deflate.flush()])


def png(side_px: int, *, before: bytes = b"", data: bytes | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    data = zeros(side_px * (1 + 3 * side_px)) if data is None else data
    parts = (chunk(b"IHDR", header), before, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge() -> bytes:
    """13,000 x 13,000 px: 507 MB of pixels in half a megabyte."""
    return png(HUGE_PX)


def texts() -> bytes:
    """An image of the right size with 1.8 GiB of text, compressed."""
    text = zeros(60 * 2**20)
    kinds = (chunk(b"zTXt", b"a\0\0" + text), chunk(b"iTXt", b"a\0\1\0\0\0" + text))
    return png(SIDE_PX, before=b"".join(kinds) * 15)


def endless() -> bytes:
    """An image of the right size whose data go on for 1 GiB."""
    return png(SIDE_PX, data=zeros(2**30))


def peak_kib() -> int:
    """Most memory that this process had since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_kib()


@pytest.mark.parametrize("decode", ["whole", "crop"])
@pytest.mark.parametrize("make", [huge, texts, endless])
def test_image_that_inflates_to_gigabytes_costs_neither_memory_nor_time(make: Callable[[], bytes], decode: str) -> None:
    payload = make()
    before_kib, began_s = forget_peak(), time.process_time()
    with contextlib.suppress(DamageError):
        if decode == "whole":
            decode_png(payload, "a.png", SIDE_PX)
        else:
            decode_crop(payload, "a.png", Crop(0, 0, 48, 0), SIDE_PX)
    assert time.process_time() - began_s < MAX_SECONDS
    assert (peak_kib() - before_kib) / 1024 < MAX_MIB


def test_image_of_another_size_is_refused_by_its_header() -> None:
    for payload in (huge(), png(32)):
        with pytest.raises(DamageError, match=rf"a\.png: the image has .* px, expected {SIDE_PX}x{SIDE_PX}"):
            decode_png(payload, "a.png", SIDE_PX)


@pytest.mark.parametrize("make", [huge, texts])
def test_dataset_with_a_hostile_image_is_refused_and_verify_names_it(make: Callable[[], bytes], tmp_path: Path) -> None:
    config = small_shard_config(write_photos(tmp_path / "photos", [(96, 96)]), tmp_path / "shards")
    write_shards(config)
    manifest = read_manifest(config.output)
    sample = ShardSet.open(config.output).sample(0)
    members = [(f"{sample.key}.{name}", make() if name == "png" else sample.part(name)) for name in sample.members]
    evil = tmp_path / "evil"
    evil.mkdir()
    entry = publish_shard(evil, "images-000000", members, {})
    write_manifest(evil, Manifest(manifest.fingerprint, manifest.config, (entry,)))
    began_s = time.monotonic()
    with pytest.raises(ShardError, match="a member of this dataset has at most"):
        ShardSet.open(evil).sample(0)
    contents = verify_folder(evil)
    whats = [str(fault) for fault in [*contents.faults, *verify_shard(evil, entry, contents.settings)]]
    assert any(sample.key in what for what in whats), whats
    assert time.monotonic() - began_s < MAX_SECONDS

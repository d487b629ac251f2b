"""Finds every changed, missing or added byte in a folder of shards, and names the file and the sample."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shards.config import MAX_DECODABLE_PIXELS
from shards.errors import ShardError
from shards.format.documents import read_sealed
from shards.format.manifest import MANIFEST_FILE, Manifest, kept_manifest_file, plan_file, read_manifest
from shards.format.photos import DecodeError, decode_photo
from shards.format.png import pixels_sha256
from shards.format.records import parse_record
from shards.format.sidecars import Member, ShardEntry, Sidecar, order_fault, read_sidecar
from shards.format.storage import StoragePath

_NUM_THREADS = 4


@dataclass(frozen=True)
class Fault:
    """Something wrong on disk."""

    file: str
    """Name in the folder."""
    sample: str
    """Key, or empty if the fault concerns no single sample."""
    what: str

    def __str__(self) -> str:
        where = f"{self.file} sample {self.sample}" if self.sample else self.file
        return f"{where}: {self.what}"


def verify_folder(folder: StoragePath) -> tuple[tuple[ShardEntry, ...], list[Fault]]:
    """Check manifest, plan and the list of files.

    Args:
        folder: Folder with a manifest, damaged or not.

    Returns:
        The shards to check with `verify_shard`, and the faults so far. Of a damaged manifest, the shards are
        those whose sidecars can be read.

    Raises:
        ShardError: The folder or its manifest is missing, so there is nothing to verify.
    """
    faults: list[Fault] = []
    try:
        manifest = read_manifest(folder)
    except ShardError as error:
        if not (folder / MANIFEST_FILE).is_file():
            raise
        faults.append(Fault(MANIFEST_FILE, "", str(error)))
        shards = tuple(_readable_entries(folder))
    else:
        shards = manifest.shards
        faults += [*_stray_files(folder, shards), *_generation_faults(folder, manifest)]
    faults += _document_faults(folder)
    return shards, faults


def _readable_entries(folder: StoragePath) -> Iterator[ShardEntry]:
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].json")):
        try:
            yield read_sidecar(path).entry
        except ShardError:
            # Its tar is listed by name; `verify_shard` reads the sidecar again and reports it.
            yield ShardEntry(path.stem, "", 0, 0)


def _stray_files(folder: StoragePath, shards: tuple[ShardEntry, ...]) -> Iterator[Fault]:
    known = {shard.tar_name for shard in shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in known:
            yield Fault(path.name, "", "is in no manifest; delete it")


def _document_faults(folder: StoragePath) -> Iterator[Fault]:
    for pattern in ("plan*.json", "manifest-*.json"):
        for path in folder.glob(pattern):
            try:
                read_sealed(path)
            except ShardError as error:
                yield Fault(path.name, "", str(error))


def _generation_faults(folder: StoragePath, manifest: Manifest) -> Iterator[Fault]:
    for number, generation in enumerate(manifest.generations):
        name = plan_file(number)
        if (folder / name).exists() and _digest_claimed(folder / name) not in {None, generation.fingerprint}:
            yield Fault(name, "", "is the plan of another dataset than the manifest's")
    for number in range(len(manifest.generations) - 1):
        name = kept_manifest_file(number)
        kept = manifest.generations[: number + 1]
        try:
            shards = read_manifest(folder, number).shards
        except ShardError as error:
            if not (folder / name).exists():
                yield Fault(name, "", str(error))
            continue
        if shards != manifest.shards[: sum(generation.num_shards for generation in kept)]:
            yield Fault(name, "", "lists other shards than the manifest")


def _digest_claimed(path: StoragePath) -> str | None:
    try:
        return read_sealed(path)["digest"]
    except ShardError:
        return None  # damage is reported where every document is read


def verify_shards(folder: StoragePath, shards: Sequence[ShardEntry]) -> Iterator[tuple[ShardEntry, list[Fault]]]:
    """Hash and decode shards, several at a time; yield each with its faults, in order."""
    # Hashing and decoding release the interpreter's lock; each thread holds one tar in memory.
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        yield from zip(shards, pool.map(lambda entry: verify_shard(folder, entry), shards), strict=True)


def verify_shard(folder: StoragePath, entry: ShardEntry) -> list[Fault]:
    """Hash and decode one shard.

    Args:
        folder: Where it lies.
        entry: The manifest's entry.

    Returns:
        Every fault; empty if all bytes are as they were written.
    """
    try:
        sidecar = read_sidecar(folder / entry.sidecar_name)
    except ShardError as error:
        return [Fault(entry.sidecar_name, "", str(error))]
    faults = list(_entry_faults(entry, sidecar))
    try:
        data = (folder / entry.tar_name).read_bytes()
    except OSError as error:
        return [*faults, Fault(entry.tar_name, "", f"cannot be read: {error.strerror or error}")]
    member_faults = [fault for member in sidecar.members if (fault := _crc_fault(data, member, entry))]
    faults += member_faults
    faults += _tar_faults(data, sidecar, named=bool(member_faults))
    damaged = {fault.sample for fault in member_faults}
    for members in sidecar.samples():
        if members[0].key not in damaged:
            faults += _decode_faults(data, members, entry)
    return faults


def _entry_faults(entry: ShardEntry, sidecar: Sidecar) -> Iterator[Fault]:
    if entry.sha256 and sidecar.entry != entry:
        yield Fault(entry.sidecar_name, "", "describes another tar than the manifest")
    disorder = order_fault([member.name for member in sidecar.members])
    if disorder:
        yield Fault(entry.sidecar_name, "", f"member {disorder}")


def _crc_fault(data: bytes, member: Member, entry: ShardEntry) -> Fault | None:
    content = data[member.offset : member.offset + member.size_bytes]
    if len(content) < member.size_bytes:
        return Fault(entry.tar_name, member.key, f"member {member.name} is cut off: the tar ends at {len(data)} bytes")
    if zlib.crc32(content) != member.crc32:
        return Fault(entry.tar_name, member.key, f"member {member.name} has a wrong CRC")
    return None


def _tar_faults(data: bytes, sidecar: Sidecar, *, named: bool) -> Iterator[Fault]:
    entry = sidecar.entry
    if len(data) != entry.size_bytes:
        yield Fault(entry.tar_name, "", f"has {len(data)} bytes, should have {entry.size_bytes}")
    elif hashlib.sha256(data).hexdigest() != entry.sha256 and not named:
        yield Fault(entry.tar_name, "", "has a wrong SHA-256, in tar headers or padding; all members are whole")


def _decode_faults(data: bytes, members: tuple[Member, ...], entry: ShardEntry) -> Iterator[Fault]:
    contents = {member.extension: data[member.offset : member.offset + member.size_bytes] for member in members}
    key = members[0].key
    expected_sha256 = None
    if "json" in contents:
        try:
            expected_sha256 = parse_record(contents["json"]).pixels_sha256
        except ValueError as error:
            yield Fault(entry.tar_name, key, f"its json is {error}")
    for extension, content in contents.items():
        if not extension.endswith("png"):
            continue
        try:
            pixels = decode_photo(content, max_pixels=MAX_DECODABLE_PIXELS)
        except DecodeError as error:
            yield Fault(entry.tar_name, key, f"its {extension} does not decode: {error}")
            continue
        if extension == "png" and pixels_sha256(pixels) != expected_sha256:
            yield Fault(entry.tar_name, key, "its pixels are not those that its record names")

"""Finds every changed, missing or added byte in a folder of shards, and names the file and the sample."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.config import MAX_DECODABLE_PIXELS
from shards.decoding import DecodeError, decode_photo
from shards.documents import read_sealed
from shards.encoding import pixels_sha256
from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, read_manifest
from shards.plan import PLAN_FILE
from shards.sidecars import Member, ShardEntry, Sidecar, order_fault, read_sidecar


@dataclass(frozen=True)
class Fault:
    """Something wrong on disk."""

    file: str
    """Name in the folder."""
    sample: str
    """Key, or empty when no sample is concerned."""
    what: str

    def __str__(self) -> str:
        where = f"{self.file} sample {self.sample}" if self.sample else self.file
        return f"{where}: {self.what}"


def verify_folder(folder: Path) -> tuple[tuple[ShardEntry, ...], list[Fault]]:
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
    fingerprint = None
    try:
        manifest = read_manifest(folder)
    except ShardError as error:
        if not (folder / MANIFEST_FILE).is_file():
            raise
        faults.append(Fault(MANIFEST_FILE, "", str(error)))
        shards = tuple(_readable_entries(folder))
    else:
        shards, fingerprint = manifest.shards, manifest.fingerprint
        faults += _stray_files(folder, shards)
    if (folder / PLAN_FILE).exists():
        faults += _plan_faults(folder, fingerprint)
    return shards, faults


def _readable_entries(folder: Path) -> Iterator[ShardEntry]:
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].json")):
        try:
            yield read_sidecar(path).entry
        except ShardError:
            # Its tar is listed by name; `verify_shard` reads the sidecar again and reports it.
            yield ShardEntry(path.stem, "", 0, 0)


def _stray_files(folder: Path, shards: tuple[ShardEntry, ...]) -> Iterator[Fault]:
    known = {shard.tar_name for shard in shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in known:
            yield Fault(path.name, "", "is in no manifest; delete it")


def _plan_faults(folder: Path, fingerprint: str | None) -> Iterator[Fault]:
    try:
        digest = read_sealed(folder / PLAN_FILE)["digest"]
    except ShardError as error:
        yield Fault(PLAN_FILE, "", str(error))
        return
    if fingerprint is not None and digest != fingerprint:
        yield Fault(PLAN_FILE, "", "is the plan of another dataset than the manifest's")


def verify_shard(folder: Path, entry: ShardEntry) -> list[Fault]:
    """Hash and decode one shard.

    Args:
        folder: Where it lies.
        entry: What the manifest says of it.

    Returns:
        Every fault; empty if each byte is as it was written.
    """
    try:
        sidecar = read_sidecar(folder / entry.sidecar_name)
    except ShardError as error:
        return [Fault(entry.sidecar_name, "", str(error))]
    faults = list(_entry_faults(entry, sidecar))
    try:
        data = (folder / entry.tar_name).read_bytes()
    except OSError as error:
        return [*faults, Fault(entry.tar_name, "", f"cannot be read: {error.strerror}")]
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
    record: dict[str, Any] = {}
    if "json" in contents:
        try:
            record = json.loads(contents["json"])
        except ValueError:
            yield Fault(entry.tar_name, key, "its record is no JSON")
    for extension, content in contents.items():
        if not extension.endswith("png"):
            continue
        try:
            pixels = decode_photo(content, max_pixels=MAX_DECODABLE_PIXELS)
        except DecodeError as error:
            yield Fault(entry.tar_name, key, f"its {extension} does not decode: {error}")
            continue
        if extension == "png" and pixels_sha256(pixels) != record.get("pixels_sha256"):
            yield Fault(entry.tar_name, key, "its pixels are not those that its record names")

"""Finds every changed, missing or added byte in a folder of shards, and names the file and the sample."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shards.degradation.recorded import recorded_recipe
from shards.errors import InputError, ShardError
from shards.format.codecs import Coding
from shards.format.documents import read_sealed
from shards.format.feature_coding import STATE_FILE, open_coding
from shards.format.manifest import MANIFEST_FILE, Manifest, kept_manifest_file, plan_file, read_manifest
from shards.format.png import decode_png, pixels_sha256
from shards.format.records import parse_record
from shards.format.settings import FeatureSettings, ImageSettings
from shards.format.sidecars import Member, ShardEntry, Sidecar, order_fault, read_sidecar
from shards.format.storage import StoragePath, child, read_whole
from shards.schema import SchemaError

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


@dataclass(frozen=True)
class Contents:
    """What a folder should hold, and where its documents are wrong."""

    shards: tuple[ShardEntry, ...]
    """To check with `verify_shard`; of a damaged manifest those whose sidecars can be read."""
    settings: ImageSettings | FeatureSettings | None
    """None if the manifest is damaged."""
    faults: list[Fault]


def verify_folder(folder: StoragePath) -> Contents:
    """Check manifest, plan and the list of files.

    Args:
        folder: Folder with a manifest, damaged or not.

    Raises:
        ShardError: The folder or its manifest is missing, so there is nothing to verify.
    """
    faults: list[Fault] = []
    settings = None
    try:
        manifest = read_manifest(folder)
    except ShardError as error:
        if not _is_there(folder / MANIFEST_FILE):
            raise
        faults.append(Fault(MANIFEST_FILE, "", str(error)))
        shards = tuple(_readable_entries(folder))
    else:
        shards, settings = manifest.shards, manifest.config
        faults += _recipe_faults(manifest)
        faults += [*_stray_files(folder, shards), *_generation_faults(folder, manifest)]
    faults += _document_faults(folder)
    return Contents(shards, settings, faults)


def _is_there(path: StoragePath) -> bool:
    try:
        return path.is_file()
    except OSError:  # the store refuses, for the reason that reading has stated
        return False


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


def _recipe_faults(manifest: Manifest) -> Iterator[Fault]:
    if isinstance(manifest.config, ImageSettings) and manifest.config.has_recipe:
        try:
            recorded_recipe(manifest.config.recipe, manifest.config.recipe_table)
        except InputError as error:
            yield Fault(MANIFEST_FILE, "", str(error))


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


def verify_shards(folder: StoragePath, contents: Contents) -> Iterator[tuple[ShardEntry, list[Fault]]]:
    """Hash and decode shards, several at a time; yield each with its faults, in order."""
    # Hashing and decoding release the interpreter's lock; each thread holds one tar in memory.
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = pool.map(lambda entry: verify_shard(folder, entry, contents.settings), contents.shards)
        yield from zip(contents.shards, found, strict=True)


def verify_shard(
    folder: StoragePath, entry: ShardEntry, settings: ImageSettings | FeatureSettings | None
) -> list[Fault]:
    """Hash and decode one shard.

    Args:
        folder: Where it lies.
        entry: The manifest's entry.
        settings: The manifest's, which records and members must follow; None if unknown.

    Returns:
        Every fault; empty if all bytes are as they were written.
    """
    try:
        sidecar = read_sidecar(child(folder, entry.sidecar_name))
    except ShardError as error:
        return [Fault(entry.sidecar_name, "", str(error))]
    faults = list(_entry_faults(entry, sidecar))
    try:
        data = read_whole(child(folder, entry.tar_name), sidecar.entry.size_bytes)
    except OSError as error:
        return [*faults, Fault(entry.tar_name, "", f"cannot be read: {error.strerror or error}")]
    member_faults = [fault for member in sidecar.members if (fault := _crc_fault(data, member, entry))]
    faults += member_faults
    faults += _tar_faults(data, sidecar, named=bool(member_faults))
    damaged = {fault.sample for fault in member_faults}
    coding, coding_faults = _coding_of(folder, settings)
    faults += coding_faults
    for members in sidecar.samples():
        if members[0].key not in damaged:
            contents = {member.extension: data[member.offset : member.offset + member.size_bytes] for member in members}
            whats = _sample_faults(contents, members[0].key, settings, coding)
            faults += [Fault(entry.tar_name, members[0].key, what) for what in whats]
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


def _coding_of(
    folder: StoragePath, settings: ImageSettings | FeatureSettings | None
) -> tuple[Coding | None, list[Fault]]:
    """Return the codec of features, or why there is none."""
    if not isinstance(settings, FeatureSettings):
        return None, []
    try:
        return open_coding(folder, settings), []
    except ShardError as error:
        return None, [Fault(STATE_FILE, "", str(error))]


def _sample_faults(
    contents: Mapping[str, bytes], key: str, settings: ImageSettings | FeatureSettings | None, coding: Coding | None
) -> Iterator[str]:
    if isinstance(settings, FeatureSettings):
        yield from _feature_faults(contents, settings, coding)
    elif settings is not None or "json" in contents:
        yield from _image_faults(contents, key, settings)


def _feature_faults(contents: Mapping[str, bytes], settings: FeatureSettings, coding: Coding | None) -> Iterator[str]:
    if contents.keys() != set(settings.extensions):
        yield f"it has the members {', '.join(contents)} instead of {settings.num_variants} features"
    if coding is None:
        return
    for extension, content in contents.items():
        try:
            coding.decode(content)
        except ValueError as error:
            yield f"its {extension} {error}"


def _image_faults(contents: Mapping[str, bytes], key: str, settings: ImageSettings | None) -> Iterator[str]:
    try:
        record = parse_record(contents.get("json", b""))
    except SchemaError as error:
        yield f"its json is {error}"
        return
    if settings is not None:
        expected = {*settings.side_px, "json"}
        if contents.keys() != expected:
            yield f"it has the members {', '.join(contents)} instead of {', '.join(sorted(expected))}"
        if fault := record.fault(settings):
            yield f"its record {fault}"
    for extension in contents.keys() & {"png", "lq.png"}:
        side_px = record.size_px[0] // (record.scale if extension == "lq.png" else 1)
        try:
            pixels = decode_png(contents[extension], f"{key}.{extension}", side_px)
        except ShardError as error:
            yield f"its {extension} does not decode: {error}"
            continue
        if extension == "png" and pixels_sha256(pixels) != record.pixels_sha256:
            yield "its pixels are not those that its record names"

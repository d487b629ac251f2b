"""Decides what every shard will hold, before anything is written.

A plan is a pure function of the surveyed inputs and the settings: the same on any machine, for any number of
workers. Photos are put in a seeded hash order and their sub-images laid end to end, grid by grid; this line
is cut into equal shards. So every shard is a mix of unrelated photos, a photo is decoded once for each shard
that needs it (one, or two at a cut), and no shard is larger than planned, however large a photo. All
sub-images have the same size in pixels, so equal numbers are equal sizes. The order in which training reads
is another permutation altogether (`shards.order`).

The plan is kept as `plan.json` beside the shards: a later run with other settings or inputs is refused with
the difference instead of mixing two datasets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.config import ShardConfig
from shards.documents import FORMAT_VERSION, digest_of, read_sealed, seal
from shards.encoding import ENCODER
from shards.errors import ShardError
from shards.files import write_atomically
from shards.sidecars import read_sidecar
from shards.subimages import cut_side, starts
from shards.survey import Photo, Reject

PLAN_FILE = "plan.json"
RECIPES = {"classical": "bicubic-1", "realworld": "realesrgan-1"}
SHARD_PREFIX = "images"
_OUR_FILES = re.compile(rf"\..*|{SHARD_PREFIX}-\d{{6}}\.(tar|json)|manifest\.json|status\.json")

# Photos take 1.7 to 2.2 bytes a pixel as PNG; a record 300 bytes and 35 a seed; a tar header and padding 768
# a member.
_BYTES_PER_PIXEL = 2.0
_RECORD_BYTES = 300
_SEED_BYTES = 35
_MEMBER_BYTES = 768


@dataclass(frozen=True)
class Piece:
    """Consecutive sub-images of one photo, by their number in its grid."""

    photo: Photo
    first: int
    count: int


@dataclass(frozen=True)
class ShardPlan:
    """What one shard will hold, in this order."""

    name: str
    pieces: tuple[Piece, ...]
    predicted_bytes: int

    @property
    def num_samples(self) -> int:
        """Sub-images of the shard."""
        return sum(piece.count for piece in self.pieces)


@dataclass(frozen=True)
class Plan:
    """A whole dataset, before it is written."""

    settings: Mapping[str, Any]
    """Everything but the inputs that decides a byte of the output."""
    photos: tuple[Photo, ...]
    rejects: tuple[Reject, ...]
    shards: tuple[ShardPlan, ...]

    @property
    def content(self) -> dict[str, Any]:
        """Plain data that the fingerprint is taken over."""
        return {
            "kind": "plan",
            "settings": dict(self.settings),
            "photos": [dataclasses.asdict(photo) for photo in self.photos],
            "rejects": [dataclasses.asdict(reject) for reject in self.rejects],
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 over settings and inputs; nothing of the machine, the output folder or the time."""
        return digest_of({**self.content, "format_version": FORMAT_VERSION})

    @property
    def num_samples(self) -> int:
        """Sub-images of all shards."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def predicted_bytes(self) -> int:
        """Expected size of all tars; real photos differ by some 20%."""
        return sum(shard.predicted_bytes for shard in self.shards)


def settings_of(config: ShardConfig) -> dict[str, Any]:
    """Return what of a configuration decides the bytes of the output."""
    return {
        "degradation": config.degradation,
        "encoder": ENCODER,
        "max_pixels": config.max_pixels,
        "recipe": RECIPES[config.degradation],
        "scale": config.scale,
        "seed": config.seed,
        "shard_size_mib": config.shard_size_mib,
        "stride_px": config.stride_px,
        "sub_image_px": config.sub_image_px,
        "variants": config.variants,
    }


def make_plan(config: ShardConfig, photos: Sequence[Photo], rejects: Sequence[Reject]) -> Plan:
    """Distribute the sub-images of photos over shards.

    Args:
        config: Settings; its paths have no influence.
        photos: Photos with distinct pixels, each at least a sub-image large, in any order; at least one.
        rejects: Inputs left out.

    Returns:
        The plan.
    """
    ordered = sorted(photos, key=lambda photo: _order_key(config.seed, photo))
    counts = [num_sub_images(photo, config) for photo in ordered]
    sample_bytes = _predict_sample_bytes(config)
    per_shard = max(1, int(config.shard_size_mib * 2**20 / sample_bytes))
    num_samples = sum(counts)
    num_shards = math.ceil(num_samples / per_shard)
    bounds = [number * num_samples // num_shards for number in range(num_shards + 1)]
    shards = tuple(
        ShardPlan(f"{SHARD_PREFIX}-{number:06d}", pieces, sum(piece.count for piece in pieces) * sample_bytes)
        for number, pieces in enumerate(_cut(ordered, counts, bounds))
    )
    return Plan(
        settings=settings_of(config),
        photos=tuple(sorted(photos, key=lambda photo: photo.name)),
        rejects=tuple(sorted(rejects, key=lambda reject: reject.path)),
        shards=shards,
    )


def num_sub_images(photo: Photo, config: ShardConfig) -> int:
    """Return how many sub-images a photo gives."""
    return math.prod(
        len(starts(cut_side(side_px, config.scale), config.sub_image_px, config.stride_px))
        for side_px in (photo.height_px, photo.width_px)
    )


def _order_key(seed: int, photo: Photo) -> bytes:
    # The seed has a fixed width, so no two (seed, photo) pairs give the same text.
    text = seed.to_bytes(8, "big") + photo.pixels_sha256.encode("ascii")
    return hashlib.blake2b(text, digest_size=16, person=b"sed-plan-1").digest()


def _predict_sample_bytes(config: ShardConfig) -> int:
    num_pixels = config.sub_image_px**2
    num_members = 2
    if config.degradation == "classical":
        num_pixels += (config.sub_image_px // config.scale) ** 2
        num_members = 3
    record_bytes = _RECORD_BYTES + _SEED_BYTES * config.variants
    return math.ceil(_BYTES_PER_PIXEL * num_pixels) + record_bytes + _MEMBER_BYTES * num_members


def _cut(photos: Sequence[Photo], counts: Sequence[int], bounds: Sequence[int]) -> Iterator[tuple[Piece, ...]]:
    pieces: list[Piece] = []
    position, shard = 0, 0
    for photo, count in zip(photos, counts, strict=True):
        first = 0
        while first < count:
            taken = min(count - first, bounds[shard + 1] - position)
            pieces.append(Piece(photo, first, taken))
            first, position = first + taken, position + taken
            if position == bounds[shard + 1]:
                yield tuple(pieces)
                pieces, shard = [], shard + 1


def write_plan(folder: Path, plan: Plan) -> None:
    """Keep a plan beside its shards."""
    write_atomically(folder / PLAN_FILE, seal(plan.content))


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Return the content of the plan that a folder was begun with, or None if there is none.

    Raises:
        ShardError: The plan is damaged, or the folder holds files that are no shards of ours.
    """
    if (folder / PLAN_FILE).exists():
        return read_sealed(folder / PLAN_FILE)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if not _OUR_FILES.fullmatch(name)]
    if others:
        raise ShardError(
            f"output folder {folder} holds {len(others)} other file(s), such as {others[0]}; "
            "choose a new or empty folder"
        )
    return None


def restore_plan(folder: Path, source: tuple[Path, ...]) -> Plan:
    """Return the plan that a folder was begun with, without looking at a photo.

    Args:
        folder: Folder with shards.
        source: Folders of photos; only named in texts.

    Returns:
        The plan, with the shards that it had then.

    Raises:
        ShardError: The plan is missing or damaged.
    """
    content = read_sealed(folder / PLAN_FILE)
    settings = {key: value for key, value in content["settings"].items() if key not in {"encoder", "recipe"}}
    config = ShardConfig(source=source, output=folder, **settings)
    photos = [Photo(**photo) for photo in content["photos"]]
    rejects = [Reject(**reject) for reject in content["rejects"]]
    # Settings as they were: with another encoder no shard may be written, and the writer says so.
    return dataclasses.replace(make_plan(config, photos, rejects), settings=content["settings"])


def check_same_plan(folder: Path, plan: Plan) -> None:
    """Check that a folder is new or was begun with this very plan.

    Raises:
        ShardError: Settings or inputs differ; lists the differences.
    """
    before = read_plan(folder)
    if before is None:
        differences = list(_orphan_differences(folder, plan))
    elif before["digest"] == plan.fingerprint:
        return
    else:
        differences = [*_setting_differences(before, plan.content), *_input_differences(before, plan.content)]
    if differences:
        listed = "\n  ".join(differences)
        raise ShardError(
            f"{folder} was begun with other settings or inputs:\n  {listed}\n"
            "  go back to those, or choose a new output folder; nothing was changed"
        )


def _orphan_differences(folder: Path, plan: Plan) -> Iterator[str]:
    # Somebody deleted a damaged plan: what is left must still be of this one.
    for path in sorted(folder.glob(f"{SHARD_PREFIX}-*.json")):
        try:
            fingerprint = read_sidecar(path).header.get("fingerprint")
        except ShardError:
            continue  # a damaged sidecar is no finished shard; it is written again
        if fingerprint != plan.fingerprint:
            yield f"{PLAN_FILE} is gone, and {path.name} is of another plan"
            return


def _setting_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = before["settings"], after["settings"]
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"


def _input_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = _inputs(before), _inputs(after)
    groups = {
        "added": sorted(new.keys() - old.keys()),
        "missing": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }
    for what, names in groups.items():
        if names:
            yield f"{len(names)} input(s) {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _inputs(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{photo["name"]: photo for photo in content["photos"]},
        **{reject["path"]: reject for reject in content["rejects"]},
    }

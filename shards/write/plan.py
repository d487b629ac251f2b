"""Decides what every shard will hold, before anything is written.

A plan is a pure function of the surveyed inputs and the settings: the same on any machine, for any number of
workers. Photos are put in a seeded hash order and their sub-images laid end to end, grid by grid; this line
is cut into equal shards. So every shard mixes unrelated photos, a photo is decoded once per shard that needs it
(one, or two at a cut), and no shard is larger than planned, however large a photo. All
sub-images have the same size in pixels, so equal numbers are equal sizes. Where folders are kept together, the line has
them in a hash order, and is cut between them. The sampling order of training is another permutation
(`shards.read.order`).

The plan is kept as `plan.json` beside the shards. Photos that are added later get a plan and shards of their own
(`shards.write.generations`); an existing plan never changes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from shards.config import GIVEN_LQ, ShardConfig
from shards.degradation.recorded import record_recipe
from shards.errors import InputError, ShardError
from shards.format.curation import DIGITS_PER_ROW, dropped_sub_images
from shards.format.documents import FORMAT_VERSION, digest_of, parse_sealed, read_sealed, seal
from shards.format.files import write_atomically
from shards.format.manifest import plan_file
from shards.format.png import ENCODER
from shards.format.rejects import Reject
from shards.format.settings import ImageSettings
from shards.format.storage import StoragePath
from shards.schema import Pattern, Range
from shards.write.subimages import cut_side, starts
from shards.write.survey import Photo

SHARD_PREFIX = "images"

_NO_PLAN = "restore it from a backup, or delete it and run jobs/shard.py again with the same settings and photos"

# Photos take 1.7 to 2.2 bytes per pixel as PNG; a record takes 300 bytes plus 35 per seed; tar header and padding take
# 768 per member.
_BYTES_PER_PIXEL = 2.0
_RECORD_BYTES = 300
_SEED_BYTES = 35
_MEMBER_BYTES = 768
MAX_SHARDS = 10**6
"""Of a dataset: names have 6 digits."""


@dataclass(frozen=True)
class Piece:
    """Consecutive sub-images of one photo, by their number among those that no rule drops, in the order of its grid."""

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
    """One generation of a dataset, before it is written."""

    settings: ImageSettings
    """Everything but the inputs that decides a byte of the output."""
    photos: tuple[Photo, ...]
    rejects: tuple[Reject, ...]
    shards: tuple[ShardPlan, ...]
    generation: int = 0
    previous: str = ""
    """Fingerprint of the generation before."""
    first_shard: int = 0
    """Number of the first shard; the generations before have those below."""

    @property
    def content(self) -> dict[str, Any]:
        """Plain data under the fingerprint."""
        return {
            "kind": "plan",
            "generation": self.generation,
            "previous": self.previous,
            "first_shard": self.first_shard,
            "settings": self.settings.to_plain(),
            "photos": [photo.to_plain() for photo in self.photos],
            "rejects": [dict(vars(reject)) for reject in self.rejects],
        }

    @property
    def file_name(self) -> str:
        """Name of its file, beside the shards."""
        return plan_file(self.generation)

    @functools.cached_property
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


def settings_of(config: ShardConfig) -> ImageSettings:
    """Return what of a configuration decides the bytes of the output.

    Raises:
        InputError: The recipe cannot be read.
    """
    is_given = config.degradation == "paired"
    recipe, table = (GIVEN_LQ, None) if is_given else record_recipe(config.recipe_name)
    return ImageSettings(
        alpha=config.alpha,
        degradation=config.degradation,
        encoder=ENCODER,
        max_pixels=config.max_pixels,
        recipe=recipe,
        scale=config.scale,
        seed=config.seed,
        shard_size_mib=config.shard_size_mib,
        stride_px=config.stride_px,
        sub_image_px=config.sub_image_px,
        variants=config.variants,
        recipe_table=table,
        keep_together=config.keep_together,
        curation=config.curation,
    )


def make_plan(config: ShardConfig, photos: Sequence[Photo], rejects: Sequence[Reject]) -> Plan:
    """Plan a new dataset.

    Args:
        config: Settings; its paths have no influence.
        photos: Photos with distinct pixels, each at least a sub-image large, in any order; at least one.
        rejects: Rejected inputs.

    Returns:
        The plan.
    """
    return plan_generation(settings_of(config), photos, rejects)


def plan_generation(
    settings: ImageSettings,
    photos: Sequence[Photo],
    rejects: Sequence[Reject],
    *,
    generation: int = 0,
    previous: str = "",
    first_shard: int = 0,
) -> Plan:
    """Distribute the sub-images of photos over shards.

    Args:
        settings: From `settings_of`.
        photos: Photos of this generation, in any order; without photos the plan has no shards.
        rejects: Rejected inputs of this generation.
        generation: Its number.
        previous: Fingerprint of the generation before.
        first_shard: Number of its first shard.

    Returns:
        The plan.

    Raises:
        InputError: There would be too many shards to number.
    """
    ordered = sorted(photos, key=lambda photo: _order_key(settings, photo))
    counts = [num_sub_images(photo, settings) for photo in ordered]
    sample_bytes = predict_sample_bytes(settings)
    per_shard = max(1, int(settings.shard_size_mib * 2**20 / sample_bytes))
    bounds = _bounds(ordered, counts, per_shard) if settings.keep_together == "folder" else _even(counts, per_shard)
    if len(bounds) > MAX_SHARDS + 1:
        raise InputError(f"{len(bounds) - 1:,} shards are more than names of 6 digits can number; raise shard_size_mib")
    shards = tuple(
        ShardPlan(f"{SHARD_PREFIX}-{number:06d}", pieces, sum(piece.count for piece in pieces) * sample_bytes)
        for number, pieces in enumerate(_cut(ordered, counts, bounds), first_shard)
    )
    by_name = tuple(sorted(photos, key=lambda photo: photo.name))
    by_path = tuple(sorted(rejects, key=lambda reject: reject.path))
    return Plan(settings, by_name, by_path, shards, generation, previous, first_shard)


def _even(counts: Sequence[int], per_shard: int) -> list[int]:
    """Return where equal shards begin in the line of all sub-images, and its end."""
    num_samples = sum(counts)
    num_shards = math.ceil(num_samples / per_shard)
    return [number * num_samples // num_shards for number in range(num_shards + 1)] if num_shards else []


def _bounds(ordered: Sequence[Photo], counts: Sequence[int], per_shard: int) -> list[int]:
    """Return where shards of whole folders begin: a folder that would overfill a shard begins the next."""
    bounds, end = [0], 0
    for _, group in itertools.groupby(zip(ordered, counts, strict=True), key=lambda pair: pair[0].folder):
        size = sum(count for _, count in group)
        if end > bounds[-1] and end + size - bounds[-1] > per_shard:
            bounds.append(end)
        end += size
    return [*bounds, end] if end else []


def num_sub_images(photo: Photo, settings: ImageSettings) -> int:
    """Return the number of sub-images of a photo that no rule drops."""
    return _grid_size(photo, settings) - len(dropped_sub_images(photo.scores, settings.curation))


def kept_sub_images(photo: Photo, settings: ImageSettings) -> list[int]:
    """Return the numbers in a photo's grid of the sub-images that no rule drops, in order."""
    dropped = dropped_sub_images(photo.scores, settings.curation)
    return [number for number in range(_grid_size(photo, settings)) if number not in dropped]


def _grid_size(photo: Photo, settings: ImageSettings) -> int:
    return math.prod(
        len(starts(cut_side(side_px, settings.scale), settings.sub_image_px, settings.stride_px))
        for side_px in (photo.height_px, photo.width_px)
    )


def _order_key(settings: ImageSettings, photo: Photo) -> tuple[bytes, str]:
    if settings.keep_together == "folder":
        return _hash(settings.seed, photo.folder, b"sed-plan-2"), photo.name
    return _hash(settings.seed, photo.pixels_sha256, b"sed-plan-1"), ""


def _hash(seed: int, text: str, purpose: bytes) -> bytes:
    # The seed has a fixed width, so no two pairs of seed and text give the same bytes.
    return hashlib.blake2b(seed.to_bytes(8, "big") + text.encode(), digest_size=16, person=purpose).digest()


def predict_sample_bytes(settings: ImageSettings) -> int:
    """Return the expected size of a sub-image in a tar, with its LQ and its record."""
    num_pixels = settings.sub_image_px**2
    num_members = 2
    if settings.has_lq:
        num_pixels += (settings.sub_image_px // settings.scale) ** 2
        num_members = 3
    record_bytes = _RECORD_BYTES + _SEED_BYTES * settings.variants
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


def write_plan(folder: StoragePath, plan: Plan) -> None:
    """Keep a plan beside its shards."""
    write_atomically(folder / plan.file_name, seal(plan.content))


def read_plan(folder: StoragePath, generation: int) -> Plan:
    """Read a plan.

    Raises:
        ShardError: It is missing or damaged.
    """
    path = folder / plan_file(generation)
    document = parse_sealed(read_sealed(path, remedy=_NO_PLAN), _Document, path, remedy=_NO_PLAN)
    settings = document.settings
    if settings.sub_image_px % settings.scale:
        raise ShardError(f"{path}: sub_image_px={settings.sub_image_px} is not a multiple of scale; {_NO_PLAN}")
    for photo in document.photos:
        if min(photo.height_px, photo.width_px) < settings.sub_image_px:
            raise ShardError(f"{path}: {photo.name} is smaller than a sub-image; {_NO_PLAN}")
        if (photo.lq is None) is not settings.has_recipe:
            raise ShardError(f"{path}: {photo.name} has no given LQ in a plan of pairs, or one in another; {_NO_PLAN}")
        if len(photo.scores or "") != _num_score_digits(photo, settings):
            raise ShardError(f"{path}: {photo.name} has not one row of scores per sub-image; {_NO_PLAN}")
    return plan_generation(
        settings,
        document.photos,
        document.rejects,
        generation=document.generation,
        previous=document.previous,
        first_shard=document.first_shard,
    )


def _num_score_digits(photo: Photo, settings: ImageSettings) -> int:
    return DIGITS_PER_ROW * (1 + _grid_size(photo, settings)) if settings.curation.needs_scores else 0


@dataclass(frozen=True)
class _Document:
    """The file's schema."""

    kind: Literal["plan"]
    generation: Annotated[int, Range(0, MAX_SHARDS)]
    previous: Annotated[str, Pattern("([0-9a-f]{64})?", "a SHA-256, or empty")]
    first_shard: Annotated[int, Range(0, MAX_SHARDS)]
    settings: ImageSettings
    photos: tuple[Photo, ...]
    rejects: tuple[Reject, ...]

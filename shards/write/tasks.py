"""Writes one shard of a plan: sub-images come from the spool where the survey has cut them, else from the photo.

A pure function of the task: it may run anywhere, again, or twice at once, and the files come out the same.
Peak memory is one decoded photo with its LR image and one encoded sub-image.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.degradation.draws import variant_seed
from shards.errors import ShardError
from shards.format.photos import DecodeError, decode_photo, read_file
from shards.format.png import Pixels, pixels_sha256
from shards.format.records import SampleRecord
from shards.format.settings import ImageSettings
from shards.format.sidecars import ShardEntry
from shards.format.storage import StoragePath
from shards.format.tars import publish_shard
from shards.write.cutting import CutPhoto, SubImage, positions_in
from shards.write.plan import Piece, Plan, ShardPlan, kept_sub_images
from shards.write.spool import Spool
from shards.write.subimages import Position
from shards.write.survey import GivenLq, Photo


@dataclass(frozen=True)
class ShardTask:
    """One shard to write, and where its photos are on this cluster."""

    folder: StoragePath
    shard: ShardPlan
    paths: Mapping[str, Path]
    """Files of photos and of their given LQ images by name."""
    settings: ImageSettings
    fingerprint: str

    @property
    def name(self) -> str:
        """Name of the shard, without suffix."""
        return self.shard.name

    @property
    def header(self) -> dict[str, Any]:
        """Header of the shard's sidecar."""
        return {
            "kind": "images",
            "fingerprint": self.fingerprint,
            "degradation": self.settings.degradation,
        }

    @property
    def max_photo_pixels(self) -> int:
        """Pixels of the largest photo."""
        return max(piece.photo.height_px * piece.photo.width_px for piece in self.shard.pieces)


def shard_tasks(plan: Plan, folder: StoragePath, paths: Mapping[str, Path]) -> list[ShardTask]:
    """Return one task per shard of a generation."""
    fingerprint = plan.fingerprint
    return [ShardTask(folder, shard, _paths(shard, paths), plan.settings, fingerprint) for shard in plan.shards]


def _paths(shard: ShardPlan, paths: Mapping[str, Path]) -> dict[str, Path]:
    files = (file for piece in shard.pieces for file in (piece.photo, piece.photo.lq) if file is not None)
    return {file.name: paths[file.name] for file in files}


def write_shard(task: ShardTask) -> ShardEntry:
    """Write a shard and its sidecar.

    Raises:
        ShardError: This machine encodes differently from the one that planned, or a photo changed since.
        OSError: Storage failed; worth a retry.
    """
    return publish_shard(task.folder, task.shard.name, _members(task), task.header)


def _members(task: ShardTask) -> Iterator[tuple[str, bytes]]:
    for piece in task.shard.pieces:
        yield from _piece_members(piece, task)


def _piece_members(piece: Piece, task: ShardTask) -> Iterator[tuple[str, bytes]]:
    photo = piece.photo
    positions = positions_in(photo.height_px, photo.width_px, task.settings)
    for number, sub_image in _sub_images(piece, task):
        key = sample_key(photo, positions[number])
        yield f"{key}.png", sub_image.gt_png
        if sub_image.lq_png is not None:
            yield f"{key}.lq.png", sub_image.lq_png
        yield f"{key}.json", _record(photo, positions[number], sub_image.pixels_sha256, task.settings).to_bytes()


def _sub_images(piece: Piece, task: ShardTask) -> Iterator[tuple[int, SubImage]]:
    """Yield a piece's sub-images with their numbers in its photo's grid, from the spool where it has them."""

    @functools.cache
    def photo() -> CutPhoto:
        return _read_photo(piece.photo, task)

    spool = Spool.beside(task.folder, task.settings)
    with spool.open(piece.photo.content_sha256) if spool else contextlib.nullcontext() as spooled:
        for number in kept_sub_images(piece.photo, task.settings)[piece.first : piece.first + piece.count]:
            yield number, (spooled and spooled.read(number)) or photo()[number]


def _read_photo(photo: Photo, task: ShardTask) -> CutPhoto:
    lq = None if photo.lq is None else _read_pixels(photo.lq, task)
    return CutPhoto(_read_pixels(photo, task), task.settings, lq)


def _read_pixels(photo: Photo | GivenLq, task: ShardTask) -> Pixels:
    path = task.paths[photo.name]
    try:
        data = read_file(path, max_pixels=task.settings.max_pixels)
    except DecodeError as error:
        raise ShardError(f"photo {path} disappeared while the job ran ({error.detail}); rerun the job") from error
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise ShardError(f"photo {path} changed while the job ran; do not modify the source, and rerun the job")
    pixels = decode_photo(data, max_pixels=task.settings.max_pixels)
    if pixels_sha256(pixels) != photo.pixels_sha256:
        raise ShardError(
            f"photo {path} decodes to other pixels than when the shards were planned, by another version of this "
            "program or of Pillow; use that one, or write the shards again into a new folder"
        )
    return pixels


def sample_key(photo: Photo, position: Position) -> str:
    """Return the key of a sub-image: file stem, start of the photo's pixel hash, row and column.

    Args:
        photo: Photo it is cut from.
        position: Where.

    Returns:
        At most 70 of `a-z A-Z 0-9 _ -`. Unique, because photos have distinct pixels; the same in every
        dataset that cuts this sub-image from this file.
    """
    stem = photo.name.rpartition("/")[2].rpartition(".")[0]
    readable = "".join(char if char.isascii() and char.isalnum() else "-" for char in stem)[:32]
    return f"{readable}-{photo.pixels_sha256[:16]}-{position.top_px:05d}-{position.left_px:05d}"


def _record(photo: Photo, position: Position, sample_id: str, settings: ImageSettings) -> SampleRecord:
    return SampleRecord(
        source=photo.name,
        position_px=position,
        size_px=(settings.sub_image_px, settings.sub_image_px),
        pixels_sha256=sample_id,
        recipe=settings.recipe,
        scale=settings.scale,
        seeds=tuple(variant_seed(settings.seed, sample_id, variant) for variant in range(settings.variants)),
        notes=photo.notes,
    )

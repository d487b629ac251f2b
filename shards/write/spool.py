"""Holds the sub-images that the survey has cut and encoded, beside the shards, until these are written.

The survey has to decode every photo before anything can be planned. Encoding is nine tenths of all the work, so the
survey does it as well while it has the pixels, and no photo is decoded twice. A photo's sub-images lie in one file
below `.spool` in the output folder; it is deleted when all shards that need it exist, so that spool and shards
together take hardly more space than the shards.

A spool file is a shortcut and never trusted: a missing or damaged sub-image is cut from the photo again, with the same
bytes. It is an uncompressed ZIP, which checks a CRC of every member. Nothing is flushed to disk: after a power cut, a
truncated file costs the work of one photo.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.format.documents import canonical_json, digest_of
from shards.format.files import open_atomic
from shards.format.remote import RemotePath
from shards.format.settings import ImageSettings
from shards.format.storage import StoragePath
from shards.write.cutting import CutPhoto, SubImage

_FOLDER = ".spool"
_RECORD = "photo.json"
# What Python's ZIP reader raises on files that are missing, truncated or changed.
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Spool:
    """The spool of one output folder; small and picklable, every worker has its own."""

    folder: Path
    """Output folder."""
    settings: ImageSettings
    """The plan's; photos cut with other settings are not found."""

    @classmethod
    def beside(cls, output: StoragePath, settings: ImageSettings) -> Spool | None:
        """Return the spool of an output; None for an object store, where every byte would be transferred twice."""
        return None if isinstance(output, RemotePath) else cls(output, settings)

    @functools.cached_property
    def _place(self) -> Path:
        return self.folder / _FOLDER / digest_of(self.settings.to_plain())[:16]

    def _path(self, sha256: str) -> Path:
        return self._place / f"{sha256}.zip"

    def keep(
        self, sha256: str, facts: Mapping[str, Any], photo: CutPhoto, dropped: Collection[int] = frozenset()
    ) -> None:
        """Cut a photo and store its sub-images.

        Args:
            sha256: Of what it is cut from, the name that it is found by; see `Photo.content_sha256`.
            facts: Plain data about the photo, returned by `facts`.
            photo: Its pixels; one encoded sub-image at a time is in memory.
            dropped: Numbers of the sub-images that no shard will hold.

        Raises:
            OSError: Storage failed.
        """
        self._place.mkdir(parents=True, exist_ok=True)
        hashes: list[str] = []
        with open_atomic(self._path(sha256), durable=False) as stream, zipfile.ZipFile(stream, "w") as archive:
            for number in range(len(photo)):
                if number in dropped:
                    hashes.append("")
                    continue
                sub_image = photo[number]
                hashes.append(sub_image.pixels_sha256)
                archive.writestr(_member(number, "png"), sub_image.gt_png)
                if sub_image.lq_png is not None:
                    archive.writestr(_member(number, "lq.png"), sub_image.lq_png)
            archive.writestr(_RECORD, canonical_json({"facts": dict(facts), "pixels_sha256": hashes}))

    def facts(self, sha256: str) -> dict[str, Any] | None:
        """Return the facts stored with a photo, or None if it is not spooled."""
        with self.open(sha256) as photo:
            return photo.facts

    @contextlib.contextmanager
    def open(self, sha256: str) -> Iterator[SpooledPhoto]:
        """Open a photo's sub-images; a photo that is not spooled has none."""
        with contextlib.ExitStack() as stack:
            archive = None
            with contextlib.suppress(*_DAMAGE):
                archive = stack.enter_context(zipfile.ZipFile(self._path(sha256)))
            yield SpooledPhoto(archive, has_lq=self.settings.has_lq)

    def drop(self, sha256: str) -> None:
        """Delete a photo's spool file, once all of its shards exist."""
        self._path(sha256).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the whole spool, including that of other settings."""
        shutil.rmtree(self.folder / _FOLDER, ignore_errors=True)


class SpooledPhoto:
    """The spooled sub-images of one photo.

    Args:
        archive: Its file; None if there is none.
        has_lq: Whether an LR image belongs to each.
    """

    def __init__(self, archive: zipfile.ZipFile | None, *, has_lq: bool) -> None:
        self._archive = archive
        self._has_lq = has_lq
        self.facts: dict[str, Any] | None = None
        self._hashes: list[str] = []
        if archive is not None:
            with contextlib.suppress(*_DAMAGE):
                record = json.loads(archive.read(_RECORD))
                self.facts, self._hashes = record["facts"], record["pixels_sha256"]

    def read(self, number: int) -> SubImage | None:
        """Return a sub-image, or None if it is missing or damaged."""
        if self._archive is None or number >= len(self._hashes):
            return None
        try:
            lq_png = self._archive.read(_member(number, "lq.png")) if self._has_lq else None
            return SubImage(self._hashes[number], self._archive.read(_member(number, "png")), lq_png)
        except _DAMAGE:
            return None


def _member(number: int, extension: str) -> str:
    return f"{number}.{extension}"

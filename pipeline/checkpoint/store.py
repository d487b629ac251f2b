"""Checkpoints: whole, portable between world sizes and backends, and complete when their manifest is there.

A checkpoint is a folder `images-%010d` of safetensors and JSON files. It is written beside its final name, hashed,
synchronised with the disk, and renamed; its manifest, with the SHA-256 of every file, is written last. On load every
file is hashed again; a damaged checkpoint is skipped for the previous one, with a warning that names it. Nothing in it
is executed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoint.facts import Manifest, checked_facts
from pipeline.checkpoint.retention import Retention
from pipeline.errors import CheckpointError, SaveError
from pipeline.weights.files import load_safetensors
from shards.errors import InputError
from shards.format.documents import parse_sealed, read_sealed, seal
from shards.format.files import sha256_of, sync_folder, write_atomically
from shards.format.storage import StoragePath, child, copy_to, read_whole
from shards.schema import parse_json

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"images-(\d{10})")
MANIFEST = "manifest.json"
_FACTS = "facts.json"
_REMEDY = "delete the folder to resume from the previous one"
_MAX_FACTS_BYTES = 2**26
_NEWEST_ONLY = Retention(newest=1)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to resume.

    Attributes:
        images_seen: Position of the run.
        tensors: Named groups (generator, discriminator, ema, optimizers) of named tensors.
        facts: Plain values: versions, hashes of the data, running sums of the open report.
    """

    images_seen: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: `RUN/checkpoints`; need not exist.
        retention: Which of them are kept; not needed for reading.
    """

    def __init__(self, folder: Path, retention: Retention = _NEWEST_ONLY) -> None:
        self._folder = folder
        self._retention = retention

    def complete(self) -> list[Path]:
        """Return the folders of all complete checkpoints, oldest first."""
        return [self._folder / _name(images_seen) for images_seen in checkpoints_in(self._folder)]

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then delete those not retained. Only one process may call this.

        Raises:
            SaveError: The disk is full, or the run folder is read-only or gone; earlier checkpoints are untouched.
        """
        final = self._folder / _name(checkpoint.images_seen)
        partial = _partial(final)
        try:
            self._folder.mkdir(exist_ok=True)  # not its parents: somebody deleted a missing folder on purpose
            self._sweep()
            partial.mkdir()
            _write_files(partial, checkpoint)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            sync_folder(self._folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise SaveError(
                f"checkpoint {final} could not be written: {getattr(error, 'strerror', None) or error}\n"
                "  the earlier checkpoints are untouched; free some space and rerun the same command to resume"
            ) from error
        self.tidy(checkpoint.images_seen)
        return final

    def adopt(self, source: StoragePath) -> Path:
        """Copy a checkpoint from elsewhere, and verify the copy. Only one process may call this.

        Args:
            source: Its folder; none of its position may be here.

        Raises:
            CheckpointError: It is damaged.
            OSError: It cannot be read, or there is no room.
        """
        final = self._folder / source.name
        partial = _partial(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            copy_to(source / MANIFEST, partial / MANIFEST)
            for name in named_files(partial):
                copy_to(child(source, name), partial / name)
            _checked_files(partial)
        except (FileNotFoundError, InputError) as error:
            raise CheckpointError(f"{source} is damaged: {error}") from error
        partial.rename(final)
        sync_folder(self._folder)
        return final

    def kept(self, positions: Collection[int]) -> set[int]:
        """Return which checkpoints at these positions are retained, of which there is at least one."""
        return self._retention.kept(positions)

    def tidy(self, images_seen: int) -> None:
        """Delete checkpoints up to this position that are not retained, and leftovers of kills.

        Called after every save and when a run starts or resumes, since a kill may have come between save and tidy.
        Checkpoints beyond this position are damaged, or the run would resume from them; they stay until the run has
        passed them. Only one process may call this.

        Args:
            images_seen: Position of the run.
        """
        there = {position for position in self.positions() if position <= images_seen}
        if there:
            for position in there - self.kept(there):
                _hide(self._folder / _name(position))
        self._sweep()

    def _sweep(self) -> None:
        for left in self._folder.glob(".*.partial"):
            shutil.rmtree(left, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; None if there is none.

        Raises:
            CheckpointError: There are checkpoints and every one is damaged.
        """
        folders = self.complete()
        for folder in reversed(folders):
            try:
                return load_checkpoint(folder)
            except CheckpointError as error:
                _LOG.warning("skipping a damaged checkpoint: %s", error)
        if folders:
            raise CheckpointError(
                f"all {len(folders)} checkpoint(s) in {self._folder} are damaged; "
                "move the run folder away to start over, or restore them from a backup"
            )
        return None

    def newest_position(self) -> int:
        """Return how many images the newest complete checkpoint has seen; 0 without one."""
        return max(self.positions(), default=0)

    def positions(self) -> list[int]:
        """Return how many images each complete checkpoint has seen, in order."""
        return list(checkpoints_in(self._folder))

    def groups(self) -> set[str]:
        """Return the groups of tensors that every complete checkpoint was written with; none without checkpoints.

        Whichever of them a run resumes from restores these. One that has lost a file is damaged, and passed over.
        """
        held = []
        for folder in self.complete():
            with contextlib.suppress(InputError):  # without a manifest that can be read it is not resumed from
                held.append({Path(name).stem for name in named_files(folder) if name.endswith(".safetensors")})
        return set.intersection(*held) if held else set()

    def weights(self, images_seen: int, group: str) -> dict[str, Tensor]:
        """Load one group of the checkpoint at a position.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        folder = self._folder / _name(images_seen)
        try:
            _checked_files(folder)
            return load_safetensors(folder / f"{group}.safetensors")
        except (InputError, OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder} is damaged: {error}") from error

    def newest_weights(self, group: str) -> tuple[Path, dict[str, Tensor]] | None:
        """Load one group of the newest intact checkpoint, beside a run that may be training.

        Returns:
            Its file and its tensors; None if there is no checkpoint.

        Raises:
            CheckpointError: There are checkpoints, and every one is damaged or without this group.
        """
        folders: list[Path] = []
        while (there := self.complete()) and there != folders:  # a run deletes old ones meanwhile
            folders = there
            for folder in reversed(folders):
                try:
                    return folder / f"{group}.safetensors", self.weights(_position(folder), group)
                except CheckpointError as error:
                    _LOG.warning("skipping a damaged checkpoint: %s", error)
        if folders:
            raise CheckpointError(
                f"no checkpoint in {self._folder} holds an intact {group}; resume the run, or restore it"
            )
        return None


def checkpoints_in(folder: StoragePath) -> dict[int, StoragePath]:
    """Return the folders of the complete checkpoints in a folder by how many images each has seen, in order.

    Args:
        folder: Of a run or of its backup; need not exist.
    """
    return {_position(path): path for path in sorted(checkpoint_folders(folder)) if (path / MANIFEST).is_file()}


def checkpoint_folders(folder: StoragePath) -> list[StoragePath]:
    """Return the folders in a folder that are named as checkpoints are, complete or not."""
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []


def _name(images_seen: int) -> str:
    return f"images-{images_seen:010d}"


def _position(folder: StoragePath) -> int:
    return int(folder.name.rpartition("-")[2])


def _partial(folder: Path) -> Path:
    """Return the name of an incomplete checkpoint: one being written or being deleted."""
    return folder.with_name(f".{folder.name}.partial")


def _hide(folder: Path) -> None:
    try:
        folder.rename(_partial(folder))
    except OSError as error:
        _LOG.warning("checkpoint %s is no longer needed, but could not be deleted: %s", folder, error.strerror)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    for group, tensors in checkpoint.tensors.items():
        _write_tensors(folder / f"{group}.safetensors", tensors)
    facts = dict(checkpoint.facts) | {"images_seen": checkpoint.images_seen}
    write_atomically(folder / _FACTS, json.dumps(facts, indent=1, sort_keys=True).encode())
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    write_atomically(folder / MANIFEST, seal({"kind": "checkpoint", "files": files}))


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Straight to the file: `save` would serialise in memory first and block every other thread for a second.
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify every file of it.

    Raises:
        CheckpointError: A file is missing or damaged; names it.
    """
    try:
        files = {name: Path(str(child(folder, name))) for name in _checked_files(folder)}
        facts = checked_facts(parse_json(read_whole(folder / _FACTS, _MAX_FACTS_BYTES)))
        groups = {path.stem: load_safetensors(path) for path in files.values() if path.suffix == ".safetensors"}
    except (OSError, InputError, SafetensorError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    return Checkpoint(facts["images_seen"], groups, facts)


def _checked_files(folder: Path) -> list[str]:
    """Return the names of a checkpoint's files, each hashed."""
    files = named_files(folder)
    for name, digest in files.items():
        if sha256_of(child(folder, name)) != digest:
            raise CheckpointError(f"{folder / name} does not have the hash in its manifest")
    return list(files)


def named_files(folder: Path) -> Mapping[str, str]:
    """Return what a checkpoint's manifest says: its files, and the hash of each."""
    path = folder / MANIFEST
    files = parse_sealed(read_sealed(path, remedy=_REMEDY), Manifest, path, remedy=_REMEDY).files
    if _FACTS not in files:
        raise CheckpointError(f"{path} does not name {_FACTS}; {_REMEDY}")
    return files

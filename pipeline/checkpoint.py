"""Checkpoints: whole, portable between world sizes and backends, and complete when their manifest is there.

A checkpoint is a folder `images-%010d` of safetensors and JSON files. It is written beside its final name, hashed,
and renamed; its manifest, with the SHA-256 of every file, is written last. On load every file is hashed again and a
damaged checkpoint is passed over for the one before, with a warning that names it. Nothing in it is executed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import CheckpointError
from shards.documents import read_sealed, seal
from shards.errors import ShardError
from shards.files import sha256_of, write_atomically

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"images-(\d{10})")
_MANIFEST = "manifest.json"
_FACTS = "facts.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        images_seen: Position of the run.
        tensors: Named groups (generator, discriminator, ema, optimizers) of named tensors.
        facts: Plain values: versions, what the run was bound to, running sums of the open report.
    """

    images_seen: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: `RUN/checkpoints`; need not exist.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def complete(self) -> list[Path]:
        """Return the folders of all complete checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(
            path for path in self._folder.iterdir() if _NAME.fullmatch(path.name) and (path / _MANIFEST).is_file()
        )

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove those that are too old. Only one process may call this.

        Raises:
            CheckpointError: The disk is full or the folder cannot be written; what was there stays.
        """
        final = self._folder / f"images-{checkpoint.images_seen:010d}"
        partial = self._folder / f".{final.name}.partial"
        try:
            for left in self._folder.glob(".*.partial"):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
            self._write_files(partial, checkpoint)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"checkpoint {final} could not be written: {error.strerror or error}\n"
                "  the earlier checkpoints are untouched; make room and run the same command to go on"
            ) from error
        self._remove_old(final)
        return final

    def _remove_old(self, newest: Path) -> None:
        complete = self.complete()
        # Those after the newest are damaged, or the run would not have gone on from before them.
        later = [path for path in complete if path.name > newest.name]
        earlier = [path for path in complete if path.name <= newest.name][: -self._keep]
        for old in later + earlier:
            # The manifest goes first: a half-removed folder is no checkpoint.
            (old / _MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)

    def _write_files(self, folder: Path, checkpoint: Checkpoint) -> None:
        for group, tensors in checkpoint.tensors.items():
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            write_atomically(folder / f"{group}.safetensors", save(contiguous))
        facts = dict(checkpoint.facts) | {"images_seen": checkpoint.images_seen}
        write_atomically(folder / _FACTS, json.dumps(facts, indent=1, sort_keys=True).encode())
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        write_atomically(folder / _MANIFEST, seal({"kind": "checkpoint", "files": files}))

    def newest(self) -> Checkpoint | None:
        """Load the newest undamaged checkpoint; None when there is none at all.

        Raises:
            CheckpointError: There are checkpoints and every one is damaged.
        """
        folders = self.complete()
        for folder in reversed(folders):
            try:
                return load_checkpoint(folder)
            except CheckpointError as error:
                _LOG.warning("passing over a damaged checkpoint: %s", error)
        if folders:
            raise CheckpointError(
                f"all {len(folders)} checkpoint(s) in {self._folder} are damaged; "
                "move the run folder away to start again, or restore them from a backup"
            )
        return None


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check every file of it.

    Raises:
        CheckpointError: A file is missing or damaged; names it.
    """
    try:
        files = read_sealed(folder / _MANIFEST, remedy="delete the folder to go on from the one before")["files"]
        for name, digest in files.items():
            if sha256_of(folder / name) != digest:
                raise CheckpointError(f"{folder / name} does not have the hash in its manifest")
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        groups = {Path(name).stem: load_file(folder / name) for name in files if name.endswith(".safetensors")}
    except (OSError, KeyError, ShardError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    return Checkpoint(int(facts["images_seen"]), groups, facts)
